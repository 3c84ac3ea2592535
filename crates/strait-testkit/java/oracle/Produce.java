package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/** Writes workloads and single records. */
public final class Produce {
    private final Clients clients;
    private final AtomicLong handles = new AtomicLong();
    private final Map<Long, Run> runs = new ConcurrentHashMap<>();
    private final Map<Long, Thread> threads = new ConcurrentHashMap<>();

    public Produce(Clients clients) {
        this.clients = clients;
    }

    /** A whole workload. With a transaction left open, the answer names a "handle" to end it with. */
    public JsonNode produce(JsonNode request) {
        Run run = new Run(clients, request);
        run.run();
        ObjectNode report = run.report();
        if (request.path("transaction").path("leave_open").asBoolean()) {
            long handle = handles.incrementAndGet();
            runs.put(handle, run);
            report.put("handle", handle);
        }
        return report;
    }

    public JsonNode endTransaction(JsonNode request) {
        Run run = runs.remove(request.get("handle").longValue());
        try (KafkaProducer<byte[], byte[]> producer = run.producer()) {
            if (request.get("commit").booleanValue()) {
                producer.commitTransaction();
            } else {
                producer.abortTransaction();
            }
        }
        return Clients.object();
    }

    public JsonNode start(JsonNode request) {
        Run run = new Run(clients, request);
        long handle = handles.incrementAndGet();
        Thread thread = new Thread(run::run, "producer-" + handle);
        thread.setDaemon(true);
        thread.start();
        runs.put(handle, run);
        threads.put(handle, thread);
        return Clients.object().put("handle", handle);
    }

    public JsonNode progress(JsonNode request) {
        return runs.get(request.get("handle").longValue()).report();
    }

    /** Answers when everything that was sent is acknowledged or has failed. */
    public JsonNode stop(JsonNode request) throws Exception {
        long handle = request.get("handle").longValue();
        Run run = runs.remove(handle);
        run.stop();
        threads.remove(handle).join();
        return run.report();
    }

    /** Given records, in one batch per partition where they fit; answers their offsets in order. */
    public JsonNode send(JsonNode request) throws Exception {
        Map<String, Object> settings = new HashMap<>(Run.settings(request));
        settings.put("linger.ms", 60_000); // until the flush below
        settings.put("batch.size", 8 << 20);
        boolean transactional = request.hasNonNull("transaction");
        ArrayNode offsets = Clients.NODES.arrayNode();
        try (KafkaProducer<byte[], byte[]> producer = clients.producer(Clients.text(request, "bootstrap"), settings)) {
            if (transactional) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : request.get("records")) {
                sent.add(producer.send(record(Clients.text(request, "topic"), record)));
            }
            producer.flush();
            for (Future<RecordMetadata> future : sent) {
                offsets.add(future.get().offset());
            }
            if (transactional && request.get("transaction").path("abort").asBoolean()) {
                producer.abortTransaction();
            } else if (transactional) {
                producer.commitTransaction();
            }
        }
        return offsets;
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, JsonNode record) {
        ProducerRecord<byte[], byte[]> made = new ProducerRecord<>(
            topic,
            record.get("partition").intValue(),
            record.hasNonNull("timestamp") ? Long.valueOf(record.get("timestamp").longValue()) : null,
            hex(record.get("key")),
            hex(record.get("value")));
        for (JsonNode header : record.path("headers")) {
            made.headers().add(header.get(0).textValue(), hex(header.get(1)));
        }
        return made;
    }

    private static byte[] hex(JsonNode text) {
        return text == null || text.isNull() ? null : HexFormat.of().parseHex(text.textValue());
    }
}
