// A throwaway peer to measure beside, not a mirror: what a good record-level copier does. It decodes every record with
// franz-go and produces it again, idempotently, in batches of up to 1 MB. No positions: it ends after RECORDS records.
//
// Usage: franz-go SOURCE TARGET SOURCE_TOPIC TARGET_TOPIC RECORDS CODEC
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if err := copyTopic(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func copyTopic(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("usage: franz-go SOURCE TARGET SOURCE_TOPIC TARGET_TOPIC RECORDS CODEC")
	}
	source, target, sourceTopic, targetTopic := args[0], args[1], args[2], args[3]
	wanted, err := strconv.ParseInt(args[4], 10, 64)
	if err != nil {
		return err
	}
	codec := kgo.NoCompression()
	switch args[5] {
	case "zstd":
		codec = kgo.ZstdCompression()
	case "lz4":
		codec = kgo.Lz4Compression()
	}
	consumer, err := kgo.NewClient(
		kgo.SeedBrokers(source),
		kgo.ConsumeTopics(sourceTopic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxPartitionBytes(4<<20),
	)
	if err != nil {
		return err
	}
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(target),
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(1000000),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(100000),
	)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for read := int64(0); read < wanted; {
		fetches := consumer.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) {
			read++
			out := &kgo.Record{
				Topic: targetTopic, Partition: r.Partition,
				Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp,
			}
			producer.Produce(ctx, out, func(_ *kgo.Record, err error) {
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			})
		})
	}
	return producer.Flush(ctx)
}
