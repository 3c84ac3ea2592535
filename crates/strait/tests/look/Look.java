import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.connect.mirror.MirrorClient;

/** What MirrorMaker 2's own client and Kafka's admin client see of a cluster: {@code COMMAND BOOTSTRAP ARGUMENTS...}. */
public final class Look {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", args[1]);
        if (args[0].equals("mirror")) {
            mirror(settings, List.of(args).subList(2, args.length));
            return;
        }
        try (Admin admin = Admin.create(settings)) {
            switch (args[0]) {
                case "acls" -> acls(admin);
                case "grant" -> grant(admin, List.of(args).subList(2, args.length));
                case "user" -> user(admin, args[2]);
                default -> throw new IllegalArgumentException(args[0]);
            }
        }
    }

    /** Every answer of MirrorClient about heartbeats, with the hops to these aliases. */
    private static void mirror(Map<String, Object> settings, List<String> aliases) throws Exception {
        try (MirrorClient client = new MirrorClient(settings)) {
            System.out.println("heartbeats " + new TreeSet<>(client.heartbeatTopics()));
            System.out.println("upstream " + new TreeSet<>(client.upstreamClusters()));
            for (String alias : aliases) {
                System.out.println("hops " + alias + " " + client.replicationHops(alias));
            }
        }
    }

    /** The ACLs of topics, one a line. */
    private static void acls(Admin admin) throws Exception {
        AclBindingFilter topics = new AclBindingFilter(
            new ResourcePatternFilter(ResourceType.TOPIC, null, PatternType.ANY), AccessControlEntryFilter.ANY);
        TreeSet<String> lines = new TreeSet<>();
        for (AclBinding acl : admin.describeAcls(topics).values().get()) {
            AccessControlEntry entry = acl.entry();
            lines.add(String.join(" ", acl.pattern().name(), acl.pattern().patternType().toString(), entry.principal(),
                entry.host(), entry.operation().toString(), entry.permissionType().toString()));
        }
        lines.forEach(System.out::println);
    }

    /** Creates ACLs of topics, each given as a line of {@link #acls}. */
    private static void grant(Admin admin, List<String> lines) throws Exception {
        List<AclBinding> acls = new ArrayList<>();
        for (String line : lines) {
            String[] word = line.split(" ");
            acls.add(new AclBinding(
                new ResourcePattern(ResourceType.TOPIC, word[0], PatternType.valueOf(word[1])),
                new AccessControlEntry(word[2], word[3], AclOperation.valueOf(word[4]), AclPermissionType.valueOf(word[5]))));
        }
        admin.createAcls(acls).all().get();
    }

    /** A user of SCRAM-SHA-256, with a quota. */
    private static void user(Admin admin, String name) throws Exception {
        ScramCredentialInfo info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096);
        admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(name, info, "never-shown"))).all().get();
        ClientQuotaEntity entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, name));
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity,
            List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1_000_000.0))))).all().get();
    }
}
