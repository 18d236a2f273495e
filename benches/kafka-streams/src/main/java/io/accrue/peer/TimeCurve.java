package io.accrue.peer;

import java.time.LocalDate;
import java.time.YearMonth;

/** A price spread over the days `from` to `to` in equal months, by cumulative rounding. Amounts in cents. */
final class TimeCurve {
    /** One month as a weight: a multiple of every month's length. */
    static final long MONTH = 755_160;

    final LocalDate from;
    final LocalDate to;
    final long amount;
    private final YearMonth first;
    private final long[] until;
    private final long total;

    TimeCurve(long amount, LocalDate from, LocalDate to) {
        this.amount = amount;
        this.from = from;
        this.to = to.isBefore(from) ? from : to;
        this.first = YearMonth.from(from);
        int rows = 1 + (int) first.until(YearMonth.from(this.to), java.time.temporal.ChronoUnit.MONTHS);
        this.until = new long[rows];
        long weight = 0;
        for (int i = 0; i < rows; i++) {
            weight += share(first.plusMonths(i), this.to);
            until[i] = weight;
        }
        this.total = weight;
        for (int i = 0; i < rows; i++) {
            until[i] = proportion(amount, until[i], total);
        }
    }

    /** Earned on the days before a day. */
    long earnedBefore(LocalDate day) {
        if (day.isAfter(to)) {
            return amount;
        }
        if (!day.isAfter(from)) {
            return 0;
        }
        long weight = 0;
        for (int i = 0; i < until.length; i++) {
            weight += share(first.plusMonths(i), day.minusDays(1));
        }
        return proportion(amount, weight, total);
    }

    /** Booked in the months that end before the first day of a month. */
    long bookedBefore(YearMonth month) {
        int over = (int) Math.min(first.until(month, java.time.temporal.ChronoUnit.MONTHS), until.length);
        return over <= 0 ? 0 : until[over - 1];
    }

    /** The price of twelve months at this rate. */
    long annual() {
        return proportion(amount, 12 * MONTH, total);
    }

    private long share(YearMonth month, LocalDate last) {
        long begin = Math.max(month.atDay(1).toEpochDay(), from.toEpochDay());
        long end = Math.min(month.atEndOfMonth().toEpochDay(), last.toEpochDay());
        return Math.max(end - begin + 1, 0) * MONTH / month.lengthOfMonth();
    }

    /** total * part / whole, half away from zero. */
    static long proportion(long total, long part, long whole) {
        if (part == whole) {
            return total;
        }
        long product = Math.multiplyExact(Math.abs(total), part);
        long rounded = (2 * product + whole) / (2 * whole);
        return total < 0 ? -rounded : rounded;
    }
}
