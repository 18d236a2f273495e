package io.accrue.peer;

import java.util.ArrayList;
import java.util.List;
import org.apache.avro.generic.GenericRecord;

/** What is stored of a deal. Amounts in cents, days since 1970. */
final class Contract {
    record Issued(
        String entryId,
        boolean recognition,
        String obligation,
        String lineType,
        String kind,
        int date,
        long amount,
        long position,
        long receivable,
        String cause) {}

    final String tenant;
    final String deal;
    /** By occurred_at, then event id. */
    final List<GenericRecord> facts = new ArrayList<>();
    final List<Issued> issued = new ArrayList<>();
    /** Contract liability above zero, contract asset below. */
    long position;
    long receivable;
    Integer nextDue;
    byte[] scheduleHash = new byte[32];
    byte[] billingHash = new byte[32];
    long scheduleRevision;
    long billingRevision;

    Contract(String tenant, String deal) {
        this.tenant = tenant;
        this.deal = deal;
    }

    /** False when the fact is there already. */
    boolean add(GenericRecord fact) {
        String id = fact.get("event_id").toString();
        long at = (Long) fact.get("occurred_at");
        int place = facts.size();
        for (int i = 0; i < facts.size(); i++) {
            GenericRecord known = facts.get(i);
            String knownId = known.get("event_id").toString();
            if (knownId.equals(id)) {
                return false;
            }
            long knownAt = (Long) known.get("occurred_at");
            if (place == facts.size() && (knownAt > at || knownAt == at && knownId.compareTo(id) > 0)) {
                place = i;
            }
        }
        facts.add(place, fact);
        return true;
    }
}
