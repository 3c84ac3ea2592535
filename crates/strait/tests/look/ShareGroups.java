import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Share groups as their users see them: read CLUSTER GROUP TOPIC UNTIL_FILE (makes UNTIL_FILE.begun) | alter CLUSTER GROUP TOPIC OFFSET | offsets CLUSTER GROUP. */
public final class ShareGroups {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", args[1]));
        try (Admin admin = Admin.create(settings)) {
            switch (args[0]) {
                case "read":
                    ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, args[2]);
                    AlterConfigOp earliest = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET);
                    AlterConfigOp committed = new AlterConfigOp(new ConfigEntry("share.isolation.level", "read_committed"), AlterConfigOp.OpType.SET);
                    admin.incrementalAlterConfigs(Map.of(group, List.of(earliest, committed))).all().get();
                    read(settings, args[2], args[3], Path.of(args[4]));
                    break;
                case "alter":
                    Map<TopicPartition, Long> wanted = Map.of(new TopicPartition(args[3], 0), Long.parseLong(args[4]));
                    admin.alterShareGroupOffsets(args[2], wanted).all().get();
                    break;
                default:
                    Map<TopicPartition, SharePartitionOffsetInfo> offsets = new TreeMap<>((a, b) -> a.toString().compareTo(b.toString()));
                    offsets.putAll(admin.listShareGroupOffsets(Map.of(args[2], new ListShareGroupOffsetsSpec())).partitionsToOffsetInfo(args[2]).get());
                    offsets.forEach((partition, offset) -> System.out.println(offset.startOffset()));
            }
        }
    }

    /** Reads and acknowledges records until the file is there; prints the numbers of the workload's records. */
    private static void read(Map<String, Object> settings, String group, String topic, Path end) throws Exception {
        settings.put("group.id", group);
        try (KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(Set.of(topic));
            while (!Files.exists(end)) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    System.out.println(new String(record.value()).split("/")[1]);
                    Files.writeString(Path.of(end + ".begun"), "");
                }
            }
        }
    }
}
