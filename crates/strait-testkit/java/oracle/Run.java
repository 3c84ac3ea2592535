package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaException;

/** One workload being written: all of it, or until it is told to stop. */
final class Run {
    private final Clients clients;
    private final JsonNode spec;
    private final Workload workload;
    private final String bootstrap;
    private final long firstId;
    private final long endId;
    private final long flushEvery;
    private final long perTransaction;
    private final long abortEvery;
    private final boolean leaveOpen;
    private final double rate;
    private final long begun = System.nanoTime();
    private final AtomicLong acked = new AtomicLong();
    private final AtomicLong failed = new AtomicLong();
    private long aborted;
    private long uncertain;
    private volatile long nextId;
    private volatile boolean stop;
    private volatile String error;
    private KafkaProducer<byte[], byte[]> producer;

    Run(Clients clients, JsonNode spec) {
        this.clients = clients;
        this.spec = spec;
        bootstrap = Clients.text(spec, "bootstrap");
        firstId = spec.path("first_id").asLong();
        endId = spec.hasNonNull("count") ? firstId + spec.get("count").longValue() : Long.MAX_VALUE;
        nextId = firstId;
        flushEvery = spec.path("flush_every").asLong();
        JsonNode transaction = spec.path("transaction");
        perTransaction = transaction.path("records").asLong();
        abortEvery = transaction.path("abort_every").asLong();
        leaveOpen = transaction.path("leave_open").asBoolean();
        rate = spec.path("rate").asDouble();
        producer = open();
        workload = new Workload(spec, producer.partitionsFor(Clients.text(spec, "topic")).size());
    }

    static Map<String, Object> settings(JsonNode spec) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("compression.type", spec.path("codec").asText("none"));
        settings.put("linger.ms", spec.path("linger_ms").asInt(5));
        settings.put("batch.size", spec.path("batch_size").asInt(16_384));
        if (spec.path("not_idempotent").asBoolean()) {
            settings.put("enable.idempotence", false);
        }
        if (spec.path("rate").asDouble() > 0) {
            // Paced producers outlive their broker. A new one whose first batch is refused by a broker that just started,
            // while its second is taken, could never write the first: the broker takes any first sequence.
            settings.put("max.in.flight.requests.per.connection", 1);
        }
        if (spec.hasNonNull("transaction")) {
            settings.put("transactional.id", Clients.text(spec.get("transaction"), "id"));
            settings.put("transaction.timeout.ms", spec.get("transaction").path("timeout_ms").asInt(60_000));
        }
        return settings;
    }

    private KafkaProducer<byte[], byte[]> open() {
        KafkaProducer<byte[], byte[]> opened = clients.producer(bootstrap, settings(spec));
        if (spec.hasNonNull("transaction")) {
            opened.initTransactions();
        }
        return opened;
    }

    void run() {
        try {
            if (perTransaction > 0) {
                transactions();
            } else {
                for (; !stop && nextId < endId; nextId++) {
                    pace();
                    send(nextId);
                    if (flushEvery > 0 && (nextId - firstId + 1) % flushEvery == 0) {
                        producer.flush();
                    }
                }
                producer.flush();
            }
        } catch (RuntimeException e) {
            error = e.toString();
        } finally {
            if (!leaveOpen) {
                producer.close();
            }
        }
    }

    private void transactions() {
        for (long number = 1; !stop && nextId < endId; number++) {
            long first = nextId;
            boolean abort = abortEvery > 0 && number % abortEvery == 0;
            long before = acked.get();
            boolean ending = false;
            try {
                producer.beginTransaction();
                while (nextId < endId && nextId < first + perTransaction && !stop) {
                    pace();
                    send(nextId);
                    nextId++;
                }
                producer.flush(); // records of an aborted transaction must have been in the log to mean anything
                if (leaveOpen && nextId >= endId) {
                    return;
                }
                if (abort) {
                    producer.abortTransaction();
                    aborted += acked.get() - before;
                    acked.set(before);
                } else {
                    ending = true;
                    producer.commitTransaction();
                }
            } catch (KafkaException e) {
                error = e.toString();
                if (ending) {
                    uncertain += acked.get() - before;
                } else {
                    aborted += acked.get() - before;
                }
                acked.set(before);
                producer.close(java.time.Duration.ZERO);
                producer = open(); // its initTransactions ends the old transaction one way or the other
            }
        }
    }

    private void send(long id) {
        producer.send(workload.record(id), (metadata, exception) -> {
            if (exception == null) {
                acked.incrementAndGet();
            } else {
                failed.incrementAndGet();
                error = exception.toString();
            }
        });
    }

    private void pace() {
        if (rate <= 0) {
            return;
        }
        long due = begun + (long) ((nextId - firstId) / rate * 1e9);
        for (long left = due - System.nanoTime(); left > 0 && !stop; left = due - System.nanoTime()) {
            LockSupport.parkNanos(Math.min(left, 50_000_000L));
        }
    }

    void stop() {
        stop = true;
    }

    KafkaProducer<byte[], byte[]> producer() {
        return producer;
    }

    ObjectNode report() {
        ObjectNode report = Clients.object();
        report.put("acked", acked.get());
        report.put("aborted", aborted);
        report.put("uncertain", uncertain);
        report.put("failed", failed.get());
        report.put("next_id", nextId);
        report.put("millis", (System.nanoTime() - begun) / 1_000_000);
        report.put("error", error);
        return report;
    }
}
