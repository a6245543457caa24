package peers

// Where settings come from.
const (
	docServer    = "debezium.io/documentation/reference/3.0/operations/debezium-server.html"
	docConnector = "debezium.io/documentation/reference/3.0/connectors/postgresql.html"
	docRouter    = "debezium.io/documentation/reference/3.0/transformations/outbox-event-router.html"
	docProducer  = "kafka.apache.org/documentation/#producerconfigs"
)

// Settings implements [Peer]: what it needs to do this work at all and, tuned,
// what makes it fast.
func (d Debezium) Settings() []Setting {
	all := []Setting{
		{"debezium.sink.type", "kafka", docServer},
		{"debezium.sink.kafka.producer.key.serializer", "org.apache.kafka.common.serialization.StringSerializer", "required: " + docServer},
		{"debezium.sink.kafka.producer.value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer", "required: " + docServer},
		{"debezium.source.connector.class", "io.debezium.connector.postgresql.PostgresConnector", docConnector},
		{"debezium.source.plugin.name", "pgoutput", "built into PostgreSQL: " + docConnector},
		{"debezium.source.publication.autocreate.mode", "disabled", "the publication of the one table exists: " + docConnector},
		{"debezium.source.table.include.list", "public.outboxevent", docRouter},
		{"debezium.source.snapshot.mode", "no_data", "the slot exists before the first event, so the log has them all: " + docConnector},
		{"debezium.source.topic.prefix", "peer", "required: " + docConnector},
		{"debezium.source.tombstones.on.delete", "false", "the router drops them anyway: " + docRouter},
		{"debezium.source.offset.flush.interval.ms", "0", "as in the example of " + docServer + "; the engine's default of 60000 repeats up to a minute of events after a crash"},
		{"debezium.format.key", "simplestring", "the same key as from the others: " + docServer},
		{"debezium.format.value", "binary", "the payload as it is, which the router's documentation shows with BinaryDataConverter: " + docRouter},
		{"debezium.transforms", "outbox", docRouter},
		{"debezium.transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter", docRouter},
		{"debezium.transforms.outbox.route.topic.replacement", "${routedByValue}", "the topic is the column: " + docRouter},
		{"debezium.transforms.outbox.table.fields.additional.placement",
			"type:header,source:header,content_type:header,correlation_id:header,traceparent:header", "the same attributes as from the others: " + docRouter},
	}
	if d.Heap != "" {
		all = append(all, Setting{"-Xmx", d.Heap, "nobody's recommendation: how little memory it does with"})
	}
	if !d.Tuned {
		return all
	}
	return append(all,
		Setting{"debezium.source.poll.interval.ms", "5", "default 500; lower is less latency: " + docConnector},
		Setting{"debezium.source.max.batch.size", "8192", "default 2048; events that are processed at once: " + docConnector},
		Setting{"debezium.source.max.queue.size", "32768", "default 8192; has to be larger than a batch: " + docConnector},
		Setting{"debezium.format.header.schemas.enable", "false", "default true, which writes a schema beside each header: " + docServer},
		Setting{"debezium.sink.kafka.producer.compression.type", "snappy", "default none; the same as the others': " + docProducer},
		Setting{"debezium.sink.kafka.producer.batch.size", "131072", "default 16384; fewer requests: " + docProducer},
	)
}
