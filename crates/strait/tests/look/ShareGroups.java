import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsResult;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Share groups as their users see them: read CLUSTER GROUP TOPIC UNTIL_FILE (UNTIL_FILE.read has the number of records so far) |
 * alter CLUSTER TOPIC OFFSET GROUP... (each one beyond the one before) | offsets CLUSTER GROUP... (-1 where there is none) |
 * feature CLUSTER LEVEL (0: the cluster knows no share groups).
 */
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
                    List<KafkaFuture<Void>> altered = new ArrayList<>();
                    for (int n = 4; n < args.length; n++) {
                        long offset = Long.parseLong(args[3]) + n - 4;
                        altered.add(admin.alterShareGroupOffsets(args[n], Map.of(new TopicPartition(args[2], 0), offset)).all());
                    }
                    for (KafkaFuture<Void> one : altered) {
                        one.get();
                    }
                    break;
                case "feature":
                    short level = Short.parseShort(args[2]);
                    FeatureUpdate.UpgradeType type = level == 0 ? FeatureUpdate.UpgradeType.UNSAFE_DOWNGRADE : FeatureUpdate.UpgradeType.UPGRADE;
                    admin.updateFeatures(Map.of("share.version", new FeatureUpdate(level, type)), new UpdateFeaturesOptions()).all().get();
                    break;
                default:
                    Map<String, ListShareGroupOffsetsSpec> asked = new HashMap<>();
                    for (int n = 2; n < args.length; n++) {
                        asked.put(args[n], new ListShareGroupOffsetsSpec());
                    }
                    ListShareGroupOffsetsResult told = admin.listShareGroupOffsets(asked);
                    for (int n = 2; n < args.length; n++) {
                        Map<TopicPartition, SharePartitionOffsetInfo> offsets = told.partitionsToOffsetInfo(args[n]).get();
                        System.out.println(offsets.isEmpty() ? -1 : offsets.values().iterator().next().startOffset());
                    }
            }
        }
    }

    /** Reads and acknowledges records until the file is there; prints the numbers of the workload's records. */
    private static void read(Map<String, Object> settings, String group, String topic, Path end) throws Exception {
        settings.put("group.id", group);
        try (KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(Set.of(topic));
            long count = 0;
            while (!Files.exists(end)) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    System.out.println(new String(record.value()).split("/")[1]);
                    count++;
                }
                Path part = Path.of(end + ".part");
                Files.writeString(part, Long.toString(count));
                Files.move(part, Path.of(end + ".read"), StandardCopyOption.ATOMIC_MOVE);
            }
        }
    }
}
