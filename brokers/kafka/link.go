package kafka

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// link is the publisher's connection to one broker. Its goroutine gathers the
// batches that wait for this broker into requests.
type link struct {
	p    *Publisher
	addr string
	in   chan *attempt

	// Of the running goroutine.
	conn *conn
	next *attempt // taken from in, but did not fit

	mu  sync.Mutex
	raw net.Conn // of conn, to be closed by force
}

// conn is one generation of the connection.
type conn struct {
	broker *sarama.Broker
	broken atomic.Bool
}

// attempt is one sending of a batch.
type attempt struct {
	topic     string
	partition int32
	batch     *batch
	producer  producerID
	sequence  int32
	done      chan error // buffered; nil: published
	state     atomic.Int32
	started   time.Time
}

// States of an attempt.
const (
	queued  int32 = iota // nothing has left this process
	writing              // the request may be partly written
	sent                 // the request is with the network
	dropped              // taken back before it was written
)

func newAttempt(pt *partition, b *batch) *attempt {
	return &attempt{
		topic: pt.topic.name, partition: pt.id, batch: b,
		producer: pt.producer, sequence: pt.sequence,
		done: make(chan error, 1), started: time.Now(),
	}
}

// resolve delivers the outcome. The channel has room for the only one.
func (a *attempt) resolve(err error) {
	select {
	case a.done <- err:
	default:
	}
}

// abandon takes the attempt back as far as that is possible.
func (a *attempt) abandon(l *link) {
	if a.state.CompareAndSwap(queued, dropped) {
		return
	}
	// Half a request never reaches the log if its connection ends here. And a
	// broker that has been silent for so long will not be heard on this
	// connection: the next attempt gets a new one.
	if a.state.Load() == writing || time.Since(a.started) > l.p.cfg.PublishTimeout/2 {
		l.kill()
	}
}

func newLink(p *Publisher, addr string) *link {
	return &link{p: p, addr: addr, in: make(chan *attempt, 64)}
}

func (l *link) run() {
	defer l.shut()
	for {
		first := l.next
		l.next = nil
		if first == nil {
			select {
			case first = <-l.in:
			case <-l.p.ctx.Done():
				return
			}
		}
		l.send(l.gather(first))
	}
}

// gather adds what waits already. A partition has one attempt at a time, but an
// abandoned one may lie before its successor: these go in separate requests.
func (l *link) gather(first *attempt) []*attempt {
	group, size, limit := []*attempt{first}, onWire(first), l.p.cfg.requestRoom()
	for {
		select {
		case a := <-l.in:
			if size += onWire(a); size > limit || contains(group, a) {
				l.next = a
				return group
			}
			group = append(group, a)
		default:
			return group
		}
	}
}

func contains(group []*attempt, a *attempt) bool {
	for _, g := range group {
		if g.topic == a.topic && g.partition == a.partition {
			return true
		}
	}
	return false
}

// send sends the group as one request; the answers arrive on the client's
// goroutine.
func (l *link) send(group []*attempt) {
	c, err := l.open()
	if err != nil {
		for _, a := range group {
			a.resolve(&notSentError{err})
		}
		return
	}
	req := &sarama.ProduceRequest{
		RequiredAcks: sarama.WaitForAll,
		Timeout:      int32(min(l.p.conf.Producer.Timeout, l.p.cfg.PublishTimeout).Milliseconds()), //nolint:gosec // validated as small
		Version:      3,
	}
	if l.p.conf.Version.IsAtLeast(sarama.V2_4_0_0) {
		req.Version = 8 // not 9: its flexible form encodes every batch twice
	}
	live := group[:0:0]
	for _, a := range group {
		if !a.state.CompareAndSwap(queued, writing) {
			continue
		}
		live = append(live, a)
		a.batch.records.ProducerID = a.producer.id
		a.batch.records.ProducerEpoch = a.producer.epoch
		a.batch.records.FirstSequence = a.sequence
		req.AddBatch(a.topic, a.partition, a.batch.records)
	}
	if len(live) == 0 {
		return
	}
	err = c.broker.AsyncProduce(req, func(resp *sarama.ProduceResponse, err error) {
		if err != nil {
			c.broken.Store(true)
		}
		for _, a := range live {
			a.resolve(answer(a, resp, err))
		}
	})
	for _, a := range live {
		a.state.CompareAndSwap(writing, sent)
	}
	if err == nil {
		return
	}
	if tooBig := new(sarama.PacketEncodingError); !errors.As(err, tooBig) {
		c.broken.Store(true)
	}
	for _, a := range live {
		a.resolve(err)
	}
}

// answer picks the attempt's part of a response.
func answer(a *attempt, resp *sarama.ProduceResponse, err error) error {
	if err != nil {
		return err
	}
	block := resp.GetBlock(a.topic, a.partition)
	if block == nil {
		return sarama.ErrIncompleteResponse
	}
	if errors.Is(block.Err, sarama.ErrNoError) {
		return nil
	}
	if block.ErrorMessage != nil {
		return &answerError{code: block.Err, text: *block.ErrorMessage}
	}
	return block.Err
}

// open returns a working connection.
func (l *link) open() (*conn, error) {
	if l.conn != nil && !l.conn.broken.Load() {
		return l.conn, nil
	}
	l.shut()
	conf := *l.p.conf
	dial(l.p.ctx, &conf, l.p.cfg.TLSFiles, l.dialed)
	broker := sarama.NewBroker(l.addr)
	if err := broker.Open(&conf); err != nil {
		return nil, err
	}
	if ok, err := broker.Connected(); !ok {
		if err == nil {
			err = sarama.ErrNotConnected
		}
		return nil, err
	}
	l.conn = &conn{broker: broker}
	return l.conn, nil
}

// shut ends the connection, if there is one.
func (l *link) shut() {
	l.kill()
	if l.conn != nil {
		_ = l.conn.broker.Close() // ends the reader; the socket is closed already
		l.conn = nil
	}
}

// kill closes the socket, whatever blocks on it.
func (l *link) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.raw != nil {
		_ = l.raw.Close() // nothing to do about a failure
		l.raw = nil
	}
}

func (l *link) dialed(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raw = c
}
