import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * What a mirror adds to a record's way: one producer at a steady rate, one consumer of the source and one of the target, in
 * one process with one clock. Prints, in milliseconds, p50 and p99 of: produced to consumed at the source, produced to
 * consumed at the target, and the difference between the two of each record.
 *
 * <p>Usage: java -cp JARS Latency.java SOURCE TARGET SOURCE_TOPIC TARGET_TOPIC RATE SECONDS
 */
public final class Latency {
    /** The first part, in which everything is still being compiled, does not count. */
    private static final double WARM_UP = 0.25;

    private Latency() {}

    public static void main(String[] args) throws Exception {
        double rate = Double.parseDouble(args[4]);
        int count = (int) (rate * Double.parseDouble(args[5]));
        long[] sent = new long[count];
        Reader source = new Reader(args[0], args[2], count);
        Reader target = new Reader(args[1], args[3], count);
        source.start();
        target.start();
        source.join(3_000); // both are at the end by then; there is no sign of it
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(Map.of(
                "bootstrap.servers", args[0], "linger.ms", 0, "acks", "1"),
            new ByteArraySerializer(), new ByteArraySerializer())) {
            long begun = System.nanoTime();
            for (int number = 0; number < count; number++) {
                long due = begun + (long) (number / rate * 1e9);
                for (long left = due - System.nanoTime(); left > 0; left = due - System.nanoTime()) {
                    LockSupport.parkNanos(left);
                }
                byte[] value = ByteBuffer.allocate(208).putInt(number).array();
                sent[number] = System.nanoTime();
                producer.send(new ProducerRecord<>(args[2], 0, null, value));
            }
            producer.flush();
        }
        source.join(10_000);
        target.join(10_000);
        int first = (int) (count * WARM_UP);
        double[][] all = new double[3][count - first];
        for (int i = first; i < count; i++) {
            if (source.arrived[i] == 0 || target.arrived[i] == 0) {
                System.err.println("record " + i + " of " + count + " did not arrive");
                System.exit(1);
            }
            all[0][i - first] = (source.arrived[i] - sent[i]) / 1e6;
            all[1][i - first] = (target.arrived[i] - sent[i]) / 1e6;
            all[2][i - first] = (target.arrived[i] - source.arrived[i]) / 1e6;
        }
        StringBuilder line = new StringBuilder();
        for (double[] one : all) {
            Arrays.sort(one);
            line.append(one[one.length / 2]).append(' ').append(one[(int) (one.length * 0.99)]).append(' ');
        }
        System.out.println(line.toString().trim());
        System.exit(0);
    }

    private static final class Reader extends Thread {
        private final String bootstrap;
        private final TopicPartition partition;
        private final long[] arrived;
        private final AtomicInteger count = new AtomicInteger();

        Reader(String bootstrap, String topic, int count) {
            this.bootstrap = bootstrap;
            partition = new TopicPartition(topic, 0);
            arrived = new long[count];
            setDaemon(true);
        }

        @Override
        public void run() {
            try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(
                Map.of("bootstrap.servers", bootstrap), new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
                consumer.assign(List.of(partition));
                consumer.seekToEnd(List.of(partition));
                while (count.get() < arrived.length) {
                    consumer.poll(Duration.ofMillis(500)).forEach(record -> {
                        long now = System.nanoTime();
                        arrived[ByteBuffer.wrap(record.value()).getInt()] = now;
                        count.incrementAndGet();
                    });
                }
            }
        }
    }
}
