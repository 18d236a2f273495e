package io.accrue.peer;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.Stores;

/**
 * The contract stage of accrue as a Kafka Streams application, for comparison: the same input topic, store, changelog and
 * four output topics, under exactly_once_v2. It knows closed and amended linear monthly deals in one currency and stops
 * at anything else.
 *
 * <p>Arguments: {@code --kafka --registry --prefix --input --state}, each followed by its value; {@code --instance} for
 * static membership.
 */
public final class Peer {
    static final String STORE = "contract";

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            given.put(arguments[i].substring(2), arguments[i + 1]);
        }
        String prefix = given.get("prefix");
        Wire wire = new Wire(given.get("registry"), prefix);

        var stream = new KafkaStreams(topology(wire, prefix, given.get("input")), settings(given));
        var ended = new CountDownLatch(1);
        stream.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        stream.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR || now == KafkaStreams.State.NOT_RUNNING) {
                ended.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stream.close(Duration.ofSeconds(30))));
        stream.start();
        ended.await();
        if (stream.state() == KafkaStreams.State.ERROR) {
            Runtime.getRuntime().halt(1);
        }
    }

    private static Topology topology(Wire wire, String prefix, String input) {
        var bytesIn = new ByteArrayDeserializer();
        var bytesOut = new ByteArraySerializer();
        var topology = new Topology();
        topology.addSource("facts", bytesIn, bytesIn, input + ".contract.facts");
        topology.addProcessor("contract", () -> new ContractProcessor(wire, prefix), "facts");
        topology.addStateStore(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.ByteArray(), Serdes.ByteArray())
                .withLoggingEnabled(Map.of()),
            "contract");
        for (Output output : Output.values()) {
            topology.addSink(output.name(), output.topic(prefix), bytesOut, bytesOut, "contract");
        }
        return topology;
    }

    private static Properties settings(Map<String, String> given) {
        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("prefix"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("kafka"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, given.get("state"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 2_000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 50);
        if (given.containsKey("instance")) {
            settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG), given.get("instance"));
        }
        // As accrue's own client: lz4, batches that wait 5 ms, a megabyte at most.
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 5);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1_000_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128 << 20);
        return settings;
    }
}
