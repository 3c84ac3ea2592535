// Writes legacy/*.bin beside it, message sets of formats 0 and 1, with Kafka's own classes; with file names as
// arguments, prints what Kafka reads in them. Made with kafka-clients 4.3.1: java -cp "$KAFKA/libs/*" Legacy.java [FILE...]

import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.record.internal.Record;

public class Legacy {
    static SimpleRecord[] records(int magic, int big) {
        byte[] value = new byte[big];
        for (int i = 0; i < big; i++) value[i] = (byte) ((i * 7 + i / 256) & 0xff);
        long time = magic == 0 ? RecordBatch.NO_TIMESTAMP : 1700000001000L;
        return new SimpleRecord[] {
            new SimpleRecord(time, "k1".getBytes(), "v1".getBytes()),
            new SimpleRecord(magic == 0 ? time : time + 5, (byte[]) null, value),
            new SimpleRecord(magic == 0 ? time : time - 100, "k3".getBytes(), (byte[]) null),
        };
    }

    static MemoryRecords set(int magic, Compression codec, TimestampType type, int big) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 20), (byte) magic, codec, type, 1234L,
            type == TimestampType.LOG_APPEND_TIME ? 1700000009999L : RecordBatch.NO_TIMESTAMP);
        for (SimpleRecord record : records(magic, big)) builder.append(record);
        return builder.build();
    }

    /** As a log cleaner of those days left it: the second record is gone. */
    static MemoryRecords holes(int magic, TimestampType type) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 20), (byte) magic,
            Compression.gzip().build(), type, 1234L, RecordBatch.NO_TIMESTAMP);
        SimpleRecord[] records = records(magic, 10);
        builder.appendWithOffset(1234L, records[0]);
        builder.appendWithOffset(1236L, records[2]);
        return builder.build();
    }

    static void write(String name, ByteBuffer from) throws Exception {
        byte[] bytes = new byte[from.remaining()];
        from.duplicate().get(bytes);
        Files.createDirectories(Path.of("legacy"));
        Files.write(Path.of("legacy", name + ".bin"), bytes);
    }

    static void print(String file) throws Exception {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(Path.of(file))));
        System.out.println(file);
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            System.out.println("  " + batch);
            for (Record record : batch) {
                record.ensureValid();
                System.out.println("    " + record.offset() + "@" + record.timestamp() + " key " + record.keySize()
                    + " value " + record.valueSize());
            }
        }
    }

    public static void main(String[] files) throws Exception {
        for (String file : files) print(file);
        if (files.length > 0) return;
        Compression[] codecs = {Compression.gzip().build(), Compression.snappy().build(), Compression.lz4().build()};
        for (int magic = 0; magic < 2; magic++) {
            TimestampType type = magic == 0 ? TimestampType.NO_TIMESTAMP_TYPE : TimestampType.CREATE_TIME;
            write("v" + magic + "_none", set(magic, Compression.NONE, type, 10).buffer());
            for (Compression codec : codecs)
                write("v" + magic + "_" + codec.type().name, set(magic, codec, type, 40000).buffer());
            write("v" + magic + "_holes", holes(magic, type).buffer());
        }
        write("v1_append_time", set(1, Compression.gzip().build(), TimestampType.LOG_APPEND_TIME, 10).buffer());
        write("v1_append_time_none", set(1, Compression.NONE, TimestampType.LOG_APPEND_TIME, 10).buffer());
    }
}
