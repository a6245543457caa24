package rabbitmq

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// QueueName returns the queue, <topic>.<i>, that holds a key when a topic is
// spread over n queues: i is the first 8 bytes of the key's SHA-256, big endian,
// modulo n. It never changes and is easy to repeat in other languages. With n of
// 0 it is the topic itself.
func QueueName(topic, key string, n int) string {
	if n <= 0 {
		return topic
	}
	sum := sha256.Sum256([]byte(key))
	return topic + "." + strconv.FormatUint(binary.BigEndian.Uint64(sum[:8])%uint64(n), 10)
}

// QueueNames returns all queues of a topic that is spread over n queues, for
// [NewSubscriber].
func QueueNames(topic string, n int) []string {
	if n <= 0 {
		return []string{topic}
	}
	names := make([]string, n)
	for i := range names {
		names[i] = topic + "." + strconv.Itoa(i)
	}
	return names
}

// ensureQueue creates the queue if there is none. It looks first, because a
// declaration whose arguments differ from an existing queue's is refused, and
// the owner's choice of arguments should win.
func ensureQueue(l *link, name string) error {
	err := l.sideChannel(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	})
	if !hasCode(err, amqp.NotFound) {
		return err
	}
	return l.sideChannel(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, queueArgs(l.serverMajor()))
		return err
	})
}

// queueArgs are the arguments of a queue that keeps order and loses nothing.
func queueArgs(serverMajor int) amqp.Table {
	args := amqp.Table{
		"x-queue-type":             "quorum",
		"x-single-active-consumer": true,
	}
	// RabbitMQ 4 drops or dead-letters a message after 20 deliveries, which a few
	// restarts of a consumer use up without any handler having seen it. Attempts
	// are counted by the inbox. Older servers have no limit and refuse -1.
	if serverMajor >= 4 {
		args["x-delivery-limit"] = int32(-1)
	}
	return args
}

func (l *link) serverMajor() int {
	version, _ := l.conn.Properties["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return 0
	}
	return n
}

func hasCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == code
}
