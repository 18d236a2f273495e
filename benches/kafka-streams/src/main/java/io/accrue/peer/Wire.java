package io.accrue.peer;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;

/**
 * Avro on the Confluent wire, and of the stored contract. Schemas are fetched once; writers, encoder, decoder and buffer
 * are reused by the one stream thread. Money is a long of cents inside, a decimal of six places on the wire.
 */
final class Wire {
    private static final long PER_CENT = 10_000;
    private static final ByteBuffer ZERO = ByteBuffer.wrap(new byte[] {0});

    /** What of a contract must be kept: as accrue's own store, its facts, what was issued, and two balances. */
    private static final String STORED =
        """
        {"type": "record", "name": "Stored", "namespace": "io.accrue.peer", "fields": [
          {"name": "facts", "type": {"type": "array", "items": "%s"}},
          {"name": "issued", "type": {"type": "array", "items": {"type": "record", "name": "Issued", "fields": [
            {"name": "entry_id", "type": "string"},
            {"name": "recognition", "type": "boolean"},
            {"name": "obligation_id", "type": ["null", "string"]},
            {"name": "line_type", "type": ["null", "string"]},
            {"name": "kind", "type": "string"},
            {"name": "contract_id", "type": "string"},
            {"name": "date", "type": {"type": "int", "logicalType": "date"}},
            {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 6}},
            {"name": "position", "type": {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 6}},
            {"name": "receivable", "type": {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 6}},
            {"name": "cause", "type": "string"}]}}},
          {"name": "position", "type": {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 6}},
          {"name": "receivable", "type": {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 6}},
          {"name": "next_due", "type": ["null", {"type": "int", "logicalType": "date"}]},
          {"name": "schedule_hash", "type": "bytes"},
          {"name": "billing_hash", "type": "bytes"},
          {"name": "schedule_revision", "type": "long"},
          {"name": "billing_revision", "type": "long"}]}
        """;

    private record Topic(byte[] prefix, Schema schema, GenericDatumWriter<GenericRecord> writer) {}

    private final Map<Output, Topic> topics = new EnumMap<>(Output.class);
    private final GenericDatumReader<GenericRecord> facts;
    private final Schema stored;
    private final GenericDatumWriter<GenericRecord> storeWriter;
    private final GenericDatumReader<GenericRecord> storeReader;
    private final ByteArrayOutputStream buffer = new ByteArrayOutputStream(8192);
    private BinaryEncoder encoder;
    private BinaryDecoder decoder;

    Wire(String registry, String prefix) throws IOException, InterruptedException {
        for (Output output : Output.values()) {
            var found = latest(registry, output.topic(prefix));
            Schema schema = new Schema.Parser().parse((String) found.get("schema"));
            var wirePrefix = ByteBuffer.allocate(5).put((byte) 0).putInt((Integer) found.get("id")).array();
            topics.put(output, new Topic(wirePrefix, schema, new GenericDatumWriter<>(schema)));
        }
        var parser = new Schema.Parser();
        Schema fact = parser.parse((String) latest(registry, prefix + ".contract.facts").get("schema"));
        facts = new GenericDatumReader<>(fact);
        stored = parser.parse(STORED.formatted(fact.getFullName()));
        storeWriter = new GenericDatumWriter<>(stored);
        storeReader = new GenericDatumReader<>(stored);
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> latest(String registry, String topic) throws IOException, InterruptedException {
        var address = URI.create(registry + "/subjects/" + topic + "-value/versions/latest");
        var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(address).build(), HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IOException(address + ": " + answer.statusCode() + " " + answer.body());
        }
        return new ObjectMapper().readValue(answer.body(), Map.class);
    }

    /** Facts are written by accrue with the schema that is registered; the id is the writer's, the schema the same. */
    GenericRecord fact(byte[] bytes) {
        return read(facts, bytes, 5);
    }

    byte[] encode(Output output, GenericRecord record) {
        Topic topic = topics.get(output);
        buffer.reset();
        buffer.write(topic.prefix, 0, topic.prefix.length);
        return write(topic.writer, record);
    }

    GenericRecord fresh(Output output) {
        return new GenericData.Record(topics.get(output).schema);
    }

    /** A record of the type that a field of `of` has: itself, an array's element, or the branch of a nullable one. */
    static GenericRecord inner(GenericRecord of, String field) {
        return new GenericData.Record(recordOf(of.getSchema().getField(field).schema()));
    }

    private static Schema recordOf(Schema schema) {
        return switch (schema.getType()) {
            case RECORD -> schema;
            case ARRAY -> recordOf(schema.getElementType());
            case UNION -> recordOf(schema.getTypes().get(1));
            default -> throw new IllegalArgumentException("no record in " + schema);
        };
    }

    byte[] store(Contract contract) {
        var record = new GenericData.Record(stored);
        var issued = new ArrayList<GenericRecord>(contract.issued.size());
        for (Contract.Issued it : contract.issued) {
            var one = inner(record, "issued");
            one.put("entry_id", it.entryId());
            one.put("recognition", it.recognition());
            one.put("obligation_id", it.obligation());
            one.put("line_type", it.lineType());
            one.put("kind", it.kind());
            one.put("contract_id", contract.deal);
            one.put("date", it.date());
            one.put("amount", decimal(it.amount()));
            one.put("position", decimal(it.position()));
            one.put("receivable", decimal(it.receivable()));
            one.put("cause", it.cause());
            issued.add(one);
        }
        record.put("facts", contract.facts);
        record.put("issued", issued);
        record.put("position", decimal(contract.position));
        record.put("receivable", decimal(contract.receivable));
        record.put("next_due", contract.nextDue);
        record.put("schedule_hash", ByteBuffer.wrap(contract.scheduleHash));
        record.put("billing_hash", ByteBuffer.wrap(contract.billingHash));
        record.put("schedule_revision", contract.scheduleRevision);
        record.put("billing_revision", contract.billingRevision);
        buffer.reset();
        return write(storeWriter, record);
    }

    @SuppressWarnings("unchecked")
    Contract load(byte[] bytes, String tenant, String deal) {
        GenericRecord record = read(storeReader, bytes, 0);
        var contract = new Contract(tenant, deal);
        contract.facts.addAll((List<GenericRecord>) record.get("facts"));
        for (GenericRecord it : (List<GenericRecord>) record.get("issued")) {
            contract.issued.add(new Contract.Issued(
                it.get("entry_id").toString(),
                (Boolean) it.get("recognition"),
                text(it, "obligation_id"),
                text(it, "line_type"),
                it.get("kind").toString(),
                (Integer) it.get("date"),
                cents(it, "amount"),
                cents(it, "position"),
                cents(it, "receivable"),
                it.get("cause").toString()));
        }
        contract.position = cents(record, "position");
        contract.receivable = cents(record, "receivable");
        contract.nextDue = (Integer) record.get("next_due");
        contract.scheduleHash = bytes(record, "schedule_hash");
        contract.billingHash = bytes(record, "billing_hash");
        contract.scheduleRevision = (Long) record.get("schedule_revision");
        contract.billingRevision = (Long) record.get("billing_revision");
        return contract;
    }

    static String text(GenericRecord record, String field) {
        Object value = record.get(field);
        return value == null ? null : value.toString();
    }

    static long cents(GenericRecord record, String field) {
        ByteBuffer bytes = (ByteBuffer) record.get(field);
        long value = bytes.get(bytes.position());
        for (int i = bytes.position() + 1; i < bytes.limit(); i++) {
            value = value << 8 | bytes.get(i) & 0xff;
        }
        if (bytes.remaining() > 8 || value % PER_CENT != 0) {
            throw new Unsupported(field + " is not a whole number of cents that fits a long");
        }
        return value / PER_CENT;
    }

    /** The shortest two's complement of an amount with six decimals. */
    static ByteBuffer decimal(long cents) {
        return cents == 0 ? ZERO : unscaled(Math.multiplyExact(cents, PER_CENT));
    }

    static ByteBuffer unscaled(long value) {
        int size = 1;
        while (size < 8 && value >> (8 * size - 1) != value >> 63) {
            size++;
        }
        var bytes = new byte[size];
        for (int i = size - 1; i >= 0; i--) {
            bytes[i] = (byte) value;
            value >>= 8;
        }
        return ByteBuffer.wrap(bytes);
    }

    private static byte[] bytes(GenericRecord record, String field) {
        ByteBuffer buffer = (ByteBuffer) record.get(field);
        var bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes;
    }

    private byte[] write(GenericDatumWriter<GenericRecord> writer, GenericRecord record) {
        try {
            encoder = EncoderFactory.get().directBinaryEncoder(buffer, encoder);
            writer.write(record, encoder);
            encoder.flush();
            return buffer.toByteArray();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private GenericRecord read(GenericDatumReader<GenericRecord> reader, byte[] bytes, int from) {
        try {
            decoder = DecoderFactory.get().binaryDecoder(bytes, from, bytes.length - from, decoder);
            return reader.read(null, decoder);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
