package io.accrue.peer;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.LocalDate;
import java.time.YearMonth;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** From facts to the books: load the contract, settle it, store it, and write what was decided. */
final class ContractProcessor extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
    private static final ByteBuffer RATE_ONE = Wire.unscaled(1_000_000_000_000L);
    private static final byte[] EMPTY = new byte[0];
    private static final byte[] SPEC_VERSION = bytes("1.0");
    private static final byte[] CONTENT_TYPE = bytes("application/avro");

    private final Wire wire;
    private final String prefix;
    private KeyValueStore<byte[], byte[]> store;
    /** Days before this one have ended; kept in the store as the fact that said so. */
    private Integer clock;

    ContractProcessor(Wire wire, String prefix) {
        this.wire = wire;
        this.prefix = prefix;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        super.init(context);
        store = context.getStateStore(Peer.STORE);
        try (var facts = store.range(bytes("r "), bytes("r!"))) {
            facts.forEachRemaining(it -> clock = (Integer) wire.fact(it.value).get("clock"));
        }
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        GenericRecord fact = wire.fact(record.value());
        if (fact.get("type").toString().equals("clock.ticked")) {
            tick(fact, record.value());
            return;
        }
        String tenant = fact.get("tenant_id").toString();
        String deal = fact.get("deal_id").toString();
        byte[] key = bytes("c " + tenant + "/" + deal);
        byte[] known = store.get(key);
        Contract contract = known == null ? new Contract(tenant, deal) : wire.load(known, tenant, deal);
        Integer wasDue = contract.nextDue;
        if (!contract.add(fact)) {
            return;
        }
        var books = new Books(contract, clock);
        store.put(key, wire.store(contract));
        if (!Objects.equals(wasDue, contract.nextDue)) {
            if (wasDue != null) {
                store.delete(dueKey(contract, wasDue));
            }
            if (contract.nextDue != null) {
                store.put(dueKey(contract, contract.nextDue), EMPTY);
            }
        }
        byte[] waiting = bytes("w " + tenant + "/" + deal);
        if (store.get(waiting) != null) {
            store.delete(waiting);
        }
        publish(record, fact, contract, books);
    }

    private void tick(GenericRecord fact, byte[] value) {
        Integer day = (Integer) fact.get("clock");
        if (day.equals(clock)) {
            return;
        }
        if (clock != null) {
            throw new Unsupported("a clock that moves on");
        }
        clock = day;
        store.put(ByteBuffer.allocate(10).put(bytes("r ")).putLong(0).array(), value);
    }

    private static byte[] dueKey(Contract contract, int day) {
        return bytes("u " + contract.tenant + "/" + LocalDate.ofEpochDay(day) + "/" + contract.deal);
    }

    private void publish(Record<byte[], byte[]> input, GenericRecord fact, Contract contract, Books books) {
        var emitter = new Emitter(input, fact, contract);
        String cause = fact.get("event_id").toString();
        emitter.emit(Output.STATE, "contract.state", cause + "/state/" + contract.deal, state(contract, books));
        if (!books.schedule.isEmpty()) {
            String id = cause + "/recognition/" + contract.deal;
            emitter.emit(Output.RECOGNITION, "recognition.schedule", id, recognition(contract, books));
        }
        if (!books.billing.isEmpty()) {
            String id = cause + "/billing/" + contract.deal;
            emitter.emit(Output.BILLING, "billing.schedule", id, billing(contract, books));
        }
        for (Books.Entry entry : books.entries) {
            emitter.emit(Output.JOURNAL, "journal.entry", entry.id(), entry(contract, books, entry));
        }
    }

    /** Sends records with the CloudEvents headers that accrue writes. */
    private final class Emitter {
        private final Record<byte[], byte[]> input;
        private final Trace trace;
        private final byte[] key;
        private final byte[] source;
        private final byte[] time;
        private final byte[] tenant;
        private final byte[] deal;

        Emitter(Record<byte[], byte[]> input, GenericRecord fact, Contract contract) {
            this.input = input;
            trace = new Trace(input.headers());
            key = bytes(contract.tenant + "/" + contract.deal);
            source = bytes(fact.get("source").toString());
            long micros = (Long) fact.get("occurred_at");
            time = bytes(Instant.ofEpochSecond(micros / 1_000_000, micros % 1_000_000 * 1000).toString());
            tenant = bytes(contract.tenant);
            deal = bytes(contract.deal);
        }

        void emit(Output output, String kind, String id, GenericRecord value) {
            var headers = new RecordHeaders();
            headers.add("ce_specversion", SPEC_VERSION);
            headers.add("ce_id", bytes(id));
            headers.add("ce_source", source);
            headers.add("ce_type", bytes(kind));
            headers.add("ce_time", time);
            headers.add("ce_subject", deal);
            headers.add("ce_tenantid", tenant);
            headers.add("content-type", CONTENT_TYPE);
            headers.add("traceparent", trace.child(output.topic(prefix) + "/" + id));
            byte[] bytes = wire.encode(output, value);
            context().forward(new Record<>(key, bytes, input.timestamp(), headers), output.name());
        }
    }

    private GenericRecord state(Contract contract, Books books) {
        Wanted wanted = books.wanted;
        GenericRecord state = wire.fresh(Output.STATE);
        GenericRecord one = Wire.inner(state, "contracts");
        var obligations = new ArrayList<GenericRecord>();
        var recurring = new ArrayList<GenericRecord>();
        long price = 0;
        boolean over = true;
        for (Wanted.Obligation it : wanted.obligations) {
            GenericRecord obligation = Wire.inner(one, "obligations");
            obligation.put("obligation_id", it.id);
            obligation.put("line_item_id", it.line);
            obligation.put("method", "straight_line");
            obligation.put("start", (int) it.start.toEpochDay());
            obligation.put("end", (int) it.end.toEpochDay());
            obligation.put("allocated", Wire.decimal(it.last().price()));
            obligations.add(obligation);
            for (Wanted.Stretch stretch : it.recurring()) {
                GenericRecord atPrice = Wire.inner(state, "recurring");
                atPrice.put("obligation_id", it.id);
                atPrice.put("from", (int) stretch.from().toEpochDay());
                atPrice.put("to", (int) stretch.to().toEpochDay());
                atPrice.put("annual_amount", Wire.decimal(stretch.annual()));
                recurring.add(atPrice);
            }
            price += it.last().price();
            over &= clock != null && clock > it.end.toEpochDay();
        }
        one.put("contract_id", contract.deal);
        one.put("transaction_price", Wire.decimal(price));
        one.put("obligations", obligations);

        long recognised = 0;
        long position = 0;
        long receivable = 0;
        for (Contract.Issued it : contract.issued) {
            recognised += it.recognition() ? it.amount() : 0;
            position += it.position();
            receivable += it.receivable();
        }
        GenericRecord balances = Wire.inner(state, "balances");
        balances.put("currency", wanted.currency);
        balances.put("contract_liability", Wire.decimal(Math.max(position, 0)));
        balances.put("contract_asset", Wire.decimal(Math.max(-position, 0)));
        balances.put("receivable", Wire.decimal(receivable));
        balances.put("recognised", Wire.decimal(recognised));
        balances.put("remaining", Wire.decimal(price - recognised));

        var history = new ArrayList<GenericRecord>();
        for (Wanted.Change it : wanted.history) {
            GenericRecord change = Wire.inner(state, "history");
            change.put("event_id", it.fact().get("event_id"));
            change.put("type", it.fact().get("type"));
            change.put("occurred_at", it.fact().get("occurred_at"));
            change.put("effective", (int) it.effective().toEpochDay());
            history.add(change);
        }
        state.put("tenant_id", contract.tenant);
        state.put("deal_id", contract.deal);
        state.put("status", over && price == recognised ? "completed" : "active");
        state.put("version", (long) wanted.history.size());
        state.put("currency", wanted.currency);
        state.put("contracts", List.of(one));
        state.put("balances", balances);
        state.put("terms", wanted.history.get(wanted.history.size() - 1).fact().get("deal"));
        state.put("history", history);
        state.put("waits_for", null);
        state.put("next_due", contract.nextDue);
        state.put("rejections", List.of());
        state.put("schedule_revision", contract.scheduleRevision);
        state.put("billing_revision", contract.billingRevision);
        state.put("recurring", recurring);
        return state;
    }

    private GenericRecord recognition(Contract contract, Books books) {
        GenericRecord record = wire.fresh(Output.RECOGNITION);
        record.put("tenant_id", contract.tenant);
        record.put("deal_id", contract.deal);
        record.put("version", (long) books.wanted.history.size());
        record.put("revision", contract.scheduleRevision);
        record.put("currency", books.wanted.currency);
        record.put("functional_currency", books.wanted.currency);
        var obligations = new ArrayList<GenericRecord>();
        List<GenericRecord> rows = null;
        String last = null;
        for (Books.Row it : books.schedule) {
            if (!it.obligation().id.equals(last)) {
                last = it.obligation().id;
                rows = new ArrayList<>();
                GenericRecord obligation = Wire.inner(record, "obligations");
                obligation.put("contract_id", contract.deal);
                obligation.put("obligation_id", it.obligation().id);
                obligation.put("line_item_id", it.obligation().line);
                obligation.put("rows", rows);
                obligations.add(obligation);
            }
            GenericRecord row = Wire.inner(obligations.get(obligations.size() - 1), "rows");
            row.put("period", it.period().toString());
            row.put("amount", Wire.decimal(it.amount()));
            row.put("functional_amount", Wire.decimal(it.amount()));
            row.put("rate", RATE_ONE);
            row.put("posted", it.posted());
            rows.add(row);
        }
        record.put("obligations", obligations);
        return record;
    }

    private GenericRecord billing(Contract contract, Books books) {
        GenericRecord record = wire.fresh(Output.BILLING);
        record.put("tenant_id", contract.tenant);
        record.put("deal_id", contract.deal);
        record.put("revision", contract.billingRevision);
        record.put("currency", books.wanted.currency);
        var rows = new ArrayList<GenericRecord>();
        for (Wanted.Invoice it : books.billing) {
            GenericRecord row = Wire.inner(record, "rows");
            row.put("date", (int) it.date().toEpochDay());
            row.put("amount", Wire.decimal(it.amount()));
            row.put("tax", Wire.decimal(0));
            row.put("firm", true);
            rows.add(row);
        }
        record.put("rows", rows);
        return record;
    }

    private GenericRecord entry(Contract contract, Books books, Books.Entry entry) {
        GenericRecord record = wire.fresh(Output.JOURNAL);
        String period = YearMonth.from(LocalDate.ofEpochDay(entry.date())).toString();
        var lines = new ArrayList<GenericRecord>(entry.lines().size());
        for (Books.Line it : entry.lines()) {
            GenericRecord line = Wire.inner(record, "lines");
            ByteBuffer debit = Wire.decimal(Math.max(it.amount(), 0));
            ByteBuffer credit = Wire.decimal(Math.max(-it.amount(), 0));
            line.put("account", it.role());
            line.put("role", it.role());
            line.put("debit", debit);
            line.put("credit", credit);
            line.put("functional_debit", debit);
            line.put("functional_credit", credit);
            lines.add(line);
        }
        record.put("entry_id", entry.id());
        record.put("tenant_id", contract.tenant);
        record.put("deal_id", contract.deal);
        record.put("contract_id", contract.deal);
        record.put("obligation_id", entry.obligation());
        record.put("kind", entry.kind());
        record.put("date", entry.date());
        record.put("period", period);
        record.put("concerns", period);
        record.put("currency", books.wanted.currency);
        record.put("functional_currency", books.wanted.currency);
        record.put("lines", lines);
        record.put("cause", entry.cause());
        record.put("provenance", entry.provenance());
        record.put("reverses", null);
        GenericRecord customer = books.wanted.customer;
        record.put("customer_id", customer == null ? null : customer.get("customer_id"));
        record.put("customer_name", customer == null ? null : customer.get("name"));
        return record;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
