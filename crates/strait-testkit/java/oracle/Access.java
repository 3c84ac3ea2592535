package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** What clients may do, and how fast. */
public final class Access {
    private final Clients clients;

    public Access(Clients clients) {
        this.clients = clients;
    }

    /** Sets quotas of a client id; null takes one away. */
    public JsonNode quota(JsonNode request) throws Exception {
        ClientQuotaEntity client = new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, Clients.text(request, "client")));
        List<ClientQuotaAlteration.Op> changes = new ArrayList<>();
        request.get("set").properties().forEach(e -> changes.add(
            new ClientQuotaAlteration.Op(e.getKey(), e.getValue().isNull() ? null : e.getValue().doubleValue())));
        clients.admin(request).alterClientQuotas(List.of(new ClientQuotaAlteration(client, changes))).all().get();
        return Clients.object();
    }

    public JsonNode allow(JsonNode request) throws Exception {
        clients.admin(request).createAcls(rights(request)).all().get();
        return Clients.object();
    }

    public JsonNode revoke(JsonNode request) throws Exception {
        clients.admin(request).deleteAcls(rights(request).stream().map(AclBinding::toFilter).toList()).all().get();
        return Clients.object();
    }

    private static List<AclBinding> rights(JsonNode request) {
        ResourcePattern resource = new ResourcePattern(
            ResourceType.valueOf(Clients.text(request, "type")),
            Clients.text(request, "name"),
            request.get("prefixed").booleanValue() ? PatternType.PREFIXED : PatternType.LITERAL);
        List<AclBinding> rights = new ArrayList<>();
        request.get("operations").forEach(operation -> rights.add(new AclBinding(resource, new AccessControlEntry(
            "User:" + Clients.text(request, "user"), "*", AclOperation.valueOf(operation.asText()), AclPermissionType.ALLOW))));
        return rights;
    }
}
