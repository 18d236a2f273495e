package io.accrue.peer;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.LocalDate;
import java.time.YearMonth;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** One step of a contract: what is due is issued, what is planned is stated. */
final class Books {
    record Line(String role, long amount) {}

    record Entry(
        String id, String obligation, String kind, int date, List<Line> lines, String cause, List<String> provenance) {}

    record Row(Wanted.Obligation obligation, YearMonth period, long amount, boolean posted) {}

    private record Key(int date, boolean recognition, String obligation) {}

    private record Movement(Key key, String lineType, long amount, List<String> provenance) {
        String cause() {
            return provenance.get(provenance.size() - 1);
        }
    }

    private static final Comparator<Movement> BY_DAY = Comparator.<Movement>comparingInt(it -> it.key.date)
        .thenComparing(it -> it.key.recognition)
        .thenComparing(it -> it.key.obligation == null ? "" : it.key.obligation);

    final Wanted wanted;
    final List<Entry> entries = new ArrayList<>();
    List<Row> schedule = new ArrayList<>();
    List<Wanted.Invoice> billing;

    private final Contract contract;
    private final MessageDigest sha256;

    /** Settles the contract against the clock (days since 1970; null before the first tick). */
    Books(Contract contract, Integer clock) {
        this.contract = contract;
        try {
            sha256 = MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
        wanted = Wanted.of(contract);
        int issuedBefore = contract.issued.size();
        var pending = new ArrayList<Movement>();
        for (Movement movement : differences()) {
            if (clock != null && clock > movement.key.date) {
                post(movement);
            } else {
                pending.add(movement);
            }
        }
        contract.nextDue = pending.isEmpty() ? null : pending.get(0).key.date + 1;
        state(pending, issuedBefore);
    }

    /** Wanted less issued, by day. */
    private List<Movement> differences() {
        Map<Key, Long> issued = new HashMap<>();
        for (Contract.Issued it : contract.issued) {
            issued.merge(new Key(it.date(), it.recognition(), it.obligation()), it.amount(), Long::sum);
        }
        var movements = new ArrayList<Movement>();
        for (Wanted.Invoice it : wanted.invoices) {
            var key = new Key((int) it.date().toEpochDay(), false, null);
            add(movements, issued, new Movement(key, null, it.amount(), List.of(it.cause())));
        }
        for (Wanted.Obligation it : wanted.obligations) {
            long booked = 0;
            YearMonth last = YearMonth.from(it.end);
            for (YearMonth month = YearMonth.from(it.start); !month.isAfter(last); month = month.plusMonths(1)) {
                long until = it.bookedBefore(month.plusMonths(1));
                if (until != booked) {
                    var key = new Key((int) month.atEndOfMonth().toEpochDay(), true, it.id);
                    add(movements, issued, new Movement(key, it.lineType, until - booked, it.provenance(month)));
                    booked = until;
                }
            }
        }
        if (!issued.isEmpty()) {
            throw new Unsupported("something issued that is not wanted any more");
        }
        movements.sort(BY_DAY);
        return movements;
    }

    private static void add(List<Movement> movements, Map<Key, Long> issued, Movement movement) {
        Long before = issued.remove(movement.key);
        if (before == null) {
            movements.add(movement);
        } else if (before != movement.amount) {
            throw new Unsupported("an issued amount that changes");
        }
    }

    private void post(Movement movement) {
        long amount = movement.amount;
        if (amount < 0) {
            throw new Unsupported("a negative amount that is due");
        }
        var lines = new ArrayList<Line>(4);
        long positionBefore = contract.position;
        long receivableBefore = contract.receivable;
        if (movement.key.recognition) {
            shift(-amount, lines);
            join(lines, "revenue." + movement.lineType, -amount);
        } else {
            join(lines, "accounts_receivable", amount);
            shift(amount, lines);
            contract.receivable += amount;
        }
        lines.removeIf(line -> line.amount == 0);
        String kind = movement.key.recognition ? "recognition" : "invoice";
        String id = entryId(movement, kind);
        contract.issued.add(new Contract.Issued(
            id,
            movement.key.recognition,
            movement.key.obligation,
            movement.lineType,
            kind,
            movement.key.date,
            amount,
            contract.position - positionBefore,
            contract.receivable - receivableBefore,
            movement.cause()));
        entries.add(new Entry(
            id, movement.key.obligation, kind, movement.key.date, lines, movement.cause(), movement.provenance));
    }

    /** Towards zero the position is released, beyond it the other side is built (ASC 606-10-45-1). */
    private void shift(long delta, List<Line> lines) {
        long before = contract.position;
        long release = 0;
        if (before != 0 && before < 0 != delta < 0) {
            release = Math.abs(delta) >= Math.abs(before) ? -before : delta;
        }
        long build = delta - release;
        contract.position += delta;
        join(lines, before > 0 ? "contract_liability" : "contract_asset", -release);
        join(lines, contract.position > 0 || build > 0 ? "contract_liability" : "contract_asset", -build);
    }

    private static void join(List<Line> lines, String role, long amount) {
        for (int i = 0; i < lines.size(); i++) {
            if (lines.get(i).role.equals(role)) {
                lines.set(i, new Line(role, lines.get(i).amount + amount));
                return;
            }
        }
        lines.add(new Line(role, amount));
    }

    /** Schedule and billing rows: all of a new revision, or of the old one where some of it was posted. */
    private void state(List<Movement> pending, int issuedBefore) {
        Map<String, TreeMap<YearMonth, Row>> rows = new HashMap<>();
        Map<String, Wanted.Obligation> byId = new HashMap<>();
        for (Wanted.Obligation it : wanted.obligations) {
            rows.put(it.id, new TreeMap<>());
            byId.put(it.id, it);
        }
        for (Contract.Issued it : contract.issued) {
            if (it.recognition()) {
                add(rows, byId.get(it.obligation()), it.date(), it.amount(), true);
            }
        }
        for (Movement it : pending) {
            if (it.key.recognition) {
                add(rows, byId.get(it.key.obligation), it.key.date, it.amount, false);
            }
        }
        for (Wanted.Obligation it : wanted.obligations) {
            for (Row row : rows.get(it.id).values()) {
                if (row.amount != 0) {
                    schedule.add(row);
                }
            }
        }
        var text = new StringBuilder();
        for (Row row : schedule) {
            text.append(row.obligation.id).append(' ').append(row.period).append(' ').append(row.amount);
            text.append(' ').append(wanted.history.size()).append('\n');
        }
        byte[] scheduleHash = hash(text);
        if (MessageDigest.isEqual(scheduleHash, contract.scheduleHash)) {
            List<Contract.Issued> fresh = contract.issued.subList(issuedBefore, contract.issued.size());
            if (fresh.stream().allMatch(it -> it.obligation() == null)) {
                schedule.clear();
            }
        } else {
            contract.scheduleRevision++;
            contract.scheduleHash = scheduleHash;
        }
        text.setLength(0);
        for (Wanted.Invoice it : wanted.invoices) {
            text.append(it.date()).append(' ').append(it.amount()).append('\n');
        }
        byte[] billingHash = hash(text);
        if (MessageDigest.isEqual(billingHash, contract.billingHash)) {
            billing = List.of();
        } else {
            contract.billingRevision++;
            contract.billingHash = billingHash;
            billing = wanted.invoices;
        }
    }

    private static void add(
        Map<String, TreeMap<YearMonth, Row>> rows, Wanted.Obligation obligation, int date, long amount, boolean posted) {
        var period = YearMonth.from(LocalDate.ofEpochDay(date));
        rows.get(obligation.id).merge(period, new Row(obligation, period, amount, posted),
            (a, b) -> new Row(obligation, period, a.amount + b.amount, a.posted && b.posted));
    }

    private byte[] hash(StringBuilder text) {
        return sha256.digest(text.toString().getBytes(StandardCharsets.UTF_8));
    }

    /** Derived from what the entry is about, as accrue does: a replay repeats it. */
    private String entryId(Movement movement, String kind) {
        String[] parts = {
            contract.tenant,
            contract.deal,
            contract.deal,
            movement.key.obligation == null ? "" : movement.key.obligation,
            kind,
            movement.key.recognition ? "Recognition" : "Invoice",
            LocalDate.ofEpochDay(movement.key.date).toString(),
            movement.cause(),
            "0",
        };
        for (String part : parts) {
            byte[] bytes = part.getBytes(StandardCharsets.UTF_8);
            sha256.update(ByteBuffer.allocate(8).putLong(bytes.length).array());
            sha256.update(bytes);
        }
        return "je_" + HexFormat.of().formatHex(sha256.digest(), 0, 12);
    }
}
