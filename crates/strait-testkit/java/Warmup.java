import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A short life of a broker and its clients, run once by setup under {@code -XX:ArchiveClassesAtExit}: the archive of the
 * classes loaded here saves every later JVM most of its start-up time.
 */
public final class Warmup {
    private Warmup() {}

    public static void main(String[] args) throws Exception {
        Path directory = Files.createDirectories(Path.of(args[0]));
        int broker = freePort();
        int controller = freePort();
        Path properties = directory.resolve("server.properties");
        Files.writeString(properties, String.join("\n",
            "process.roles=broker,controller",
            "node.id=1",
            "controller.quorum.voters=1@127.0.0.1:" + controller,
            "listeners=PLAINTEXT://127.0.0.1:" + broker + ",CONTROLLER://127.0.0.1:" + controller,
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs=" + directory.resolve("data"),
            "offsets.topic.replication.factor=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "transaction.state.log.num.partitions=2",
            "log.cleaner.dedupe.buffer.size=8388608",
            ""));
        Thread server = new Thread(() -> {
            try {
                kafka.tools.StorageTool.execute(
                    new String[] {"format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", properties.toString()}, System.err);
                kafka.Kafka.main(new String[] {properties.toString()});
            } catch (RuntimeException e) {
                e.printStackTrace();
                Runtime.getRuntime().halt(3);
            }
        });
        server.setDaemon(true);
        server.start();
        Map<String, Object> client = Map.of("bootstrap.servers", "127.0.0.1:" + broker);
        try (Admin admin = Admin.create(client)) {
            admin.createTopics(List.of(new NewTopic("warmup", 1, (short) 1))).all().get(60, TimeUnit.SECONDS);
        }
        Map<String, Object> writing = Map.of("bootstrap.servers", "127.0.0.1:" + broker, "transactional.id", "warmup");
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(writing, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("warmup", new byte[10])).get(60, TimeUnit.SECONDS);
            producer.commitTransaction();
        }
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(client, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            TopicPartition partition = new TopicPartition("warmup", 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            while (consumer.poll(Duration.ofSeconds(1)).isEmpty()) {
                // The record is there: only the fetch may take more than one poll.
            }
        }
        System.exit(0);
    }

    private static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        }
    }
}
