package kafka

import (
	"errors"

	"github.com/IBM/sarama"
)

// verdict is what an attempt's outcome means for its batch.
type verdict int

const (
	published      verdict = iota
	abandoned              // no caller is left
	rejected               // something in the batch is refused for good
	badDestination         // the topic is unknown to us or forbidden
	sequenceLost           // not taken; send it again under a new epoch
	unavailable            // anything else: send it again as it is
)

// judge reads an outcome. uncertain says that an earlier attempt of the same
// batch may have been appended.
func judge(err error, uncertain bool) verdict {
	switch {
	case err == nil:
		return published
	case errors.Is(err, errAbandoned):
		return abandoned
	case isRejected(err):
		return rejected
	case isDestination(err):
		return badDestination
	case errors.Is(err, sarama.ErrDuplicateSequenceNumber) && uncertain:
		return published // by the attempt whose answer was lost
	case isSequenceLost(err):
		return sequenceLost
	default:
		return unavailable
	}
}

// maybeAppended reports whether a failed attempt may be in the log all the same.
func maybeAppended(err error) bool {
	var unsent *notSentError
	if errors.As(err, &unsent) || errors.Is(err, errNoLeader) {
		return false
	}
	for _, code := range []error{
		sarama.ErrNotLeaderForPartition, sarama.ErrUnknownTopicOrPartition,
		sarama.ErrLeaderNotAvailable, sarama.ErrNotEnoughReplicas,
	} {
		if errors.Is(err, code) {
			return false
		}
	}
	return true
}

func isTooLarge(err error) bool {
	tooBig := new(sarama.PacketEncodingError)
	return errors.Is(err, sarama.ErrMessageSizeTooLarge) ||
		errors.Is(err, sarama.ErrMessageSetSizeTooLarge) ||
		errors.As(err, tooBig) // above the client's limit for a request
}

func isRejected(err error) bool {
	return isTooLarge(err) ||
		errors.Is(err, sarama.ErrInvalidRecord) || // for example no key in a compacted topic
		errors.Is(err, sarama.ErrInvalidTimestamp)
}

// isDestination does not contain UNKNOWN_TOPIC_OR_PARTITION: as the answer to a
// batch it may come from a broker that has not heard of the topic yet. The
// metadata decide.
func isDestination(err error) bool {
	for _, code := range []error{
		sarama.ErrTopicAuthorizationFailed, sarama.ErrInvalidTopic, sarama.ErrPolicyViolation,
		sarama.ErrUnsupportedForMessageFormat, sarama.ErrUnsupportedCompressionType,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

func isSequenceLost(err error) bool {
	for _, code := range []error{
		sarama.ErrOutOfOrderSequenceNumber, sarama.ErrUnknownProducerID, sarama.ErrInvalidProducerEpoch,
		sarama.ErrInvalidProducerIDMapping, sarama.ErrProducerFenced, sarama.ErrDuplicateSequenceNumber,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// describe adds the way out to errors that somebody has to act on.
func describe(err error) error {
	switch {
	case errors.Is(err, sarama.ErrUnknownTopicOrPartition):
		return &adviceError{err, "the topic does not exist: create it, it is never created automatically"}
	case errors.Is(err, sarama.ErrTopicAuthorizationFailed):
		return &adviceError{err, "this user lacks rights on the topic: a publisher needs WRITE and DESCRIBE, a subscriber READ and DESCRIBE"}
	case errors.Is(err, sarama.ErrGroupAuthorizationFailed):
		return &adviceError{err, "this user lacks READ on the consumer group"}
	case errors.Is(err, sarama.ErrOffsetOutOfRange):
		return &adviceError{err, "the group's committed offset lies outside of what Kafka still holds: events were deleted before this group has read them, or the topic was recreated; set the offset on purpose, for example with kafka-consumer-groups.sh --reset-offsets"}
	}
	return err
}

// adviceError is an error with the way out.
type adviceError struct {
	err    error
	advice string
}

func (e *adviceError) Error() string { return e.advice + " (" + e.err.Error() + ")" }
func (e *adviceError) Unwrap() error { return e.err }

// answerError is a broker's error code with the text that came with it.
type answerError struct {
	code sarama.KError
	text string
}

func (e *answerError) Error() string { return e.code.Error() + " (" + e.text + ")" }
func (e *answerError) Unwrap() error { return e.code }

// notSentError says that nothing has left this process.
type notSentError struct{ err error }

func (e *notSentError) Error() string { return "connect: " + e.err.Error() }
func (e *notSentError) Unwrap() error { return e.err }
