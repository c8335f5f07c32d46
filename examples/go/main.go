// Command confirmations prints each confirmation of a command once.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"os/signal"
	"strings"
	"syscall"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

// How many ids are remembered: a repeat that arrives after as many other pushes
// is printed again.
const rememberedIDs = 100_000

func main() {
	bootstrap := flag.String("bootstrap", "localhost:9092", "addresses of Kafka, separated by commas")
	topic := flag.String("topic", "iot.command-status", "topic of the confirmations")
	group := flag.String("group", "northbridge-example-confirmations", "consumer group")
	count := flag.Int("count", math.MaxInt, "ends after `COUNT` records instead of following")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(*bootstrap, ",")...),
		kgo.ConsumerGroup(*group),
		kgo.ConsumeTopics(*topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// `northbridge replay` writes in transactions; the default also reads aborted ones.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Offsets are committed after their records are handled, and before partitions move.
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
	)
	if err != nil {
		log.Fatal(err)
	}
	err = consume(ctx, client, *count)
	client.CloseAllowingRebalance()
	if err != nil {
		log.Fatal(err)
	}
}

// consume handles records until ctx is done, or count of them are read.
func consume(ctx context.Context, client *kgo.Client, count int) error {
	seen, err := lru.New[string, struct{}](rememberedIDs)
	if err != nil {
		return err
	}
	for count > 0 {
		fetches := client.PollRecords(ctx, min(count, 1_000))
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			// Records that other producers wrote may have no id.
			id := header(record, "ce_id")
			if id != "" && seen.Contains(id) {
				continue
			}
			handle(record)
			seen.Add(id, struct{}{})
		}
		count -= fetches.NumRecords()
		if err := client.CommitUncommittedOffsets(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		client.AllowRebalance()
	}
	return nil
}

// handle prints a confirmation. What the platform sends can differ from what it
// documents, so a confirmation that does not fit the type is skipped, not fatal.
func handle(record *kgo.Record) {
	var push MessageConfirm
	if err := json.Unmarshal(record.Value, &push); err != nil {
		log.Printf("%s/%d@%d: %v", record.Topic, record.Partition, record.Offset, err)
		return
	}
	confirmation := push.Header
	fmt.Println(confirmation.RequestId, confirmation.Status, confirmation.From, confirmation.Timestamp)
}

func header(record *kgo.Record, key string) string {
	for _, header := range record.Headers {
		if header.Key == key {
			return string(header.Value)
		}
	}
	return ""
}
