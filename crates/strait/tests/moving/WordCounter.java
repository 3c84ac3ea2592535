import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.InvalidStateStoreException;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * A Kafka Streams application with a repartition topic, a state store and its changelog:
 * {@code BOOTSTRAP STATE-FOLDER WORDS}. It counts the words of topic {@code lines} into topic {@code counts} until it has
 * counted so many in all, ever, ends cleanly, and prints how often it has each word.
 */
public final class WordCounter {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "word-counter");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(args[1]).toString());
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        // What it has read of the repartition topic stays there to be compared.
        settings.put(StreamsConfig.REPARTITION_PURGE_INTERVAL_MS_CONFIG, 3_600_000);
        long words = Long.parseLong(args[2]);
        try (KafkaStreams streams = new KafkaStreams(topology().build(), settings)) {
            streams.start();
            Instant end = Instant.now().plusSeconds(180);
            TreeMap<String, Long> counted = new TreeMap<>();
            while (counted.values().stream().mapToLong(Long::longValue).sum() < words) {
                if (Instant.now().isAfter(end)) {
                    throw new IllegalStateException(streams.state() + ", counted only " + counted);
                }
                Thread.sleep(20);
                if (streams.state() == KafkaStreams.State.RUNNING) {
                    try {
                        counted = counted(streams);
                    } catch (InvalidStateStoreException e) {
                        // It has begun to rebalance since.
                        continue;
                    }
                }
            }
            streams.close(Duration.ofSeconds(20));
            counted.forEach((word, count) -> System.out.println(word + " " + count));
        }
    }

    private static StreamsBuilder topology() {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream("lines", Consumed.with(Serdes.String(), Serdes.String()))
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.<String, String>as("by-word")
                .withKeySerde(Serdes.String()).withValueSerde(Serdes.String()))
            .count(Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("counted"))
                .withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()))
            .toStream()
            .mapValues(count -> count.toString())
            .to("counts", Produced.with(Serdes.String(), Serdes.String()));
        return builder;
    }

    private static TreeMap<String, Long> counted(KafkaStreams streams) {
        ReadOnlyKeyValueStore<String, Long> store = streams.store(
            StoreQueryParameters.fromNameAndType("counted", QueryableStoreTypes.keyValueStore()));
        TreeMap<String, Long> counted = new TreeMap<>();
        try (KeyValueIterator<String, Long> all = store.all()) {
            all.forEachRemaining(entry -> counted.put(entry.key, entry.value));
        }
        return counted;
    }
}
