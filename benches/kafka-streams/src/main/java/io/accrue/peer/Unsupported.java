package io.accrue.peer;

/** A fact or a state beyond the part of the rules that the peer has; it stops rather than write something wrong. */
final class Unsupported extends RuntimeException {
    Unsupported(String what) {
        super(what);
    }
}
