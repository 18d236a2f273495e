package io.accrue.peer;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;

/** The W3C trace that an input record carries, and the spans of its outputs, derived from their names. */
final class Trace {
    private static final HexFormat HEX = HexFormat.of();
    private static final byte[] SPAN = "span".getBytes(StandardCharsets.UTF_8);

    private final String traceId;
    private final byte[] trace;
    private final byte[] span;
    private final String flags;
    private final MessageDigest sha256;

    Trace(Headers headers) {
        Header header = headers.lastHeader("traceparent");
        if (header == null) {
            throw new Unsupported("a fact without traceparent");
        }
        String[] parts = new String(header.value(), StandardCharsets.UTF_8).split("-");
        traceId = parts[1];
        trace = HEX.parseHex(parts[1]);
        span = HEX.parseHex(parts[2]);
        flags = parts[3];
        try {
            sha256 = MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    byte[] child(String name) {
        feed(SPAN);
        feed(trace);
        feed(span);
        feed(name.getBytes(StandardCharsets.UTF_8));
        String child = "00-" + traceId + "-" + HEX.formatHex(sha256.digest(), 0, 8) + "-" + flags;
        return child.getBytes(StandardCharsets.UTF_8);
    }

    private void feed(byte[] part) {
        sha256.update(part);
        sha256.update((byte) 0);
    }
}
