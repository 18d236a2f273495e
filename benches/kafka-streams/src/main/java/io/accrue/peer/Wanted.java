package io.accrue.peer;

import java.time.LocalDate;
import java.time.YearMonth;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.generic.GenericRecord;

/** The books that a deal's facts call for: obligations and invoices, by the rules of linear monthly deals. */
final class Wanted {
    record Segment(LocalDate from, long base, TimeCurve curve, long price, String cause) {}

    /** Revenue at one price from a day to a day. */
    record Stretch(LocalDate from, LocalDate to, long annual) {}

    record Invoice(LocalDate date, long amount, String cause) {}

    record Change(GenericRecord fact, LocalDate effective) {}

    static final class Obligation {
        String id;
        String line;
        String lineType;
        LocalDate start;
        LocalDate end;
        final List<Segment> segments = new ArrayList<>();

        Segment last() {
            return segments.get(segments.size() - 1);
        }

        long earnedBefore(LocalDate day) {
            Segment segment = before(day);
            return segment.base + segment.curve.earnedBefore(day);
        }

        long bookedBefore(YearMonth month) {
            Segment segment = before(month.atDay(1));
            return segment.base + segment.curve.bookedBefore(month);
        }

        /** All but setup recurs. A segment holds until the next one begins. */
        List<Stretch> recurring() {
            var found = new ArrayList<Stretch>(segments.size());
            for (int i = 0; !lineType.equals("setup") && i < segments.size(); i++) {
                Segment it = segments.get(i);
                LocalDate to = i + 1 == segments.size() ? end : segments.get(i + 1).from.minusDays(1);
                long annual = it.curve.annual();
                if (!it.from.isAfter(to) && annual != 0) {
                    found.add(new Stretch(it.from, to, annual));
                }
            }
            return found;
        }

        private Segment before(LocalDate day) {
            for (int i = segments.size() - 1; i > 0; i--) {
                if (segments.get(i).from.isBefore(day)) {
                    return segments.get(i);
                }
            }
            return segments.get(0);
        }

        /** The events behind what is booked in a month. */
        List<String> provenance(YearMonth month) {
            var causes = new ArrayList<String>(2);
            for (int i = 0; i < segments.size(); i++) {
                boolean begun = !segments.get(i).from.isAfter(month.atEndOfMonth());
                boolean holds = i + 1 == segments.size() || segments.get(i + 1).from.isAfter(month.atDay(1));
                if (begun && holds || segments.size() == 1) {
                    causes.add(segments.get(i).cause);
                }
            }
            if (causes.isEmpty()) {
                causes.add(segments.get(0).cause);
            }
            return causes;
        }
    }

    final List<Obligation> obligations = new ArrayList<>();
    final List<Change> history = new ArrayList<>();
    List<Invoice> invoices = List.of();
    String currency;
    /** Who the latest terms that name a customer are with. */
    GenericRecord customer;
    private LocalDate start;
    private LocalDate end;

    static Wanted of(Contract contract) {
        var wanted = new Wanted();
        for (GenericRecord fact : contract.facts) {
            GenericRecord deal = (GenericRecord) fact.get("deal");
            if (deal != null && deal.get("customer") != null) {
                wanted.customer = (GenericRecord) deal.get("customer");
            }
            switch (fact.get("type").toString()) {
                case "deal.closed" -> wanted.close(contract.deal, fact, deal);
                case "deal.amended" -> wanted.amend(fact, deal);
                default -> throw new Unsupported("a fact of type " + fact.get("type"));
            }
        }
        return wanted;
    }

    private void close(String dealId, GenericRecord fact, GenericRecord deal) {
        if (!history.isEmpty()) {
            throw new Unsupported("a second close");
        }
        require("monthly".equals(Wire.text(deal, "billing_cycle")), "a billing cycle that is not monthly");
        require("straight_line".equals(Wire.text(deal, "method")), "a method that is not linear");
        require(Boolean.TRUE.equals(deal.get("defer_setup")), "a setup fee that is not deferred");
        require(deal.get("contract_end") == null && deal.get("tax") == null, "a stated end, or tax");
        require(((List<?>) deal.get("instalments")).isEmpty(), "instalments");
        currency = deal.get("currency").toString();
        start = LocalDate.ofEpochDay((Integer) deal.get("contract_start"));
        end = start.plusMonths((Integer) deal.get("term_months")).minusDays(1);
        String cause = fact.get("event_id").toString();
        for (GenericRecord line : lines(deal)) {
            var it = new Obligation();
            it.line = line.get("id").toString();
            it.lineType = line.get("type").toString();
            it.id = dealId + "/" + it.line;
            it.start = start;
            it.end = end;
            long price = Wire.cents(line, "amount");
            it.segments.add(new Segment(start, 0, new TimeCurve(price, start, end), price, cause));
            obligations.add(it);
        }
        plan(LocalDate.MIN, cause);
        history.add(new Change(fact, start));
    }

    /** What remains of a changed line is earned over what remains of the term (ASC 606-10-25-13(a)). */
    private void amend(GenericRecord fact, GenericRecord deal) {
        require(!history.isEmpty(), "an amendment before the close");
        require(deal.get("contract_start") == null && deal.get("contract_end") == null && deal.get("term_months") == null,
            "an amendment of the term");
        require(currency.contentEquals((CharSequence) deal.get("currency")), "another currency");
        require(((List<?>) deal.get("instalments")).isEmpty(), "instalments");
        LocalDate from = LocalDate.ofEpochDay((Integer) deal.get("effective_date"));
        require(from.isAfter(start) && !from.isAfter(end), "an amendment outside the term");
        String cause = fact.get("event_id").toString();
        List<GenericRecord> lines = lines(deal);
        require(lines.size() == obligations.size(), "lines that come or go");
        for (int i = 0; i < lines.size(); i++) {
            GenericRecord line = lines.get(i);
            Obligation it = obligations.get(i);
            require(it.line.contentEquals((CharSequence) line.get("id")), "lines that come or go");
            long price = Wire.cents(line, "amount");
            while (it.segments.size() > 1 && !it.last().from.isBefore(from)) {
                it.segments.remove(it.segments.size() - 1);
            }
            if (it.last().price != price) {
                long earned = it.earnedBefore(from);
                it.segments.add(new Segment(from, earned, new TimeCurve(price - earned, from, end), price, cause));
            }
        }
        plan(from, cause);
        history.add(new Change(fact, from));
    }

    /** Invoices before the day stay; the rest of the price is split over the invoice days that follow. */
    private void plan(LocalDate from, String cause) {
        long price = 0;
        for (Obligation it : obligations) {
            price += it.last().price;
        }
        var days = new ArrayList<LocalDate>();
        var weights = new ArrayList<Long>();
        for (int month = 0; !start.plusMonths(month).isAfter(end); month++) {
            LocalDate first = start.plusMonths(month);
            LocalDate next = start.plusMonths(month + 1);
            LocalDate after = next.isAfter(end) ? end.plusDays(1) : next;
            days.add(first);
            weights.add((after.toEpochDay() - first.toEpochDay()) * TimeCurve.MONTH / (next.toEpochDay() - first.toEpochDay()));
        }
        var rows = new ArrayList<Invoice>();
        for (Invoice it : invoices) {
            if (it.date.isBefore(from)) {
                rows.add(it);
            }
        }
        List<Invoice> fresh = split(price, days, weights, 0, cause);
        if (samePlan(fresh, rows, from)) {
            rows = new ArrayList<>(fresh);
        } else {
            long rest = price;
            for (Invoice it : rows) {
                rest -= it.amount;
            }
            int next = 0;
            while (next < days.size() && days.get(next).isBefore(from)) {
                next++;
            }
            if (next == days.size() || rest < 0) {
                rows.add(new Invoice(from, rest, cause));
            } else {
                rows.addAll(split(rest, days, weights, next, cause));
            }
        }
        // A row that stays as it was keeps its cause.
        Map<LocalDate, Invoice> known = new HashMap<>();
        for (Invoice it : invoices) {
            known.put(it.date, it);
        }
        var planned = new ArrayList<Invoice>(rows.size());
        for (Invoice it : rows) {
            Invoice old = known.get(it.date);
            if (it.amount != 0) {
                planned.add(old != null && old.amount == it.amount ? old : it);
            }
        }
        invoices = planned;
    }

    private static boolean samePlan(List<Invoice> fresh, List<Invoice> kept, LocalDate from) {
        int n = 0;
        for (Invoice it : fresh) {
            if (it.date.isBefore(from)) {
                if (n == kept.size() || !kept.get(n).date.equals(it.date) || kept.get(n).amount != it.amount) {
                    return false;
                }
                n++;
            }
        }
        return n == kept.size();
    }

    private static List<Invoice> split(long price, List<LocalDate> days, List<Long> weights, int first, String cause) {
        long total = 0;
        for (int i = first; i < days.size(); i++) {
            total += weights.get(i);
        }
        var rows = new ArrayList<Invoice>(days.size() - first);
        long weight = 0;
        long billed = 0;
        for (int i = first; i < days.size(); i++) {
            weight += weights.get(i);
            long until = TimeCurve.proportion(price, weight, total);
            rows.add(new Invoice(days.get(i), until - billed, cause));
            billed = until;
        }
        return rows;
    }

    @SuppressWarnings("unchecked")
    private static List<GenericRecord> lines(GenericRecord deal) {
        var lines = (List<GenericRecord>) deal.get("line_items");
        long sum = 0;
        for (GenericRecord line : lines) {
            for (String field : List.of("quantity", "ssp", "ssp_low", "discount", "start", "end", "method", "distinct", "recurring")) {
                require(line.get(field) == null, "a line with " + field);
            }
            sum += Wire.cents(line, "amount");
        }
        require(sum == Wire.cents(deal, "amount"), "lines that do not add up to the deal");
        return lines;
    }

    private static void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new Unsupported(otherwise);
        }
    }
}
