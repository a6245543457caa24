package inbox

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/dedup"
)

// What [Sighting.State] may be besides the states of a dead letter.
const (
	SeenHandled   = "handled"   // its effect and the record of it have committed
	SeenNot       = "not_seen"  // no trace: not arrived, on its way, or not for this consumer
	SeenForgotten = "forgotten" // too old to be remembered: nobody can tell
)

// Sighting is what one consumer knows of an event.
type Sighting struct {
	Consumer string `json:"consumer"`
	// State is handled, not_seen or forgotten; or that of its dead letter: dead,
	// blocked, moving, moved, retrying, discarded.
	State string `json:"state"`
	// Letter is its latest dead letter, if it has one, without headers and payload; a
	// handled event may have one that was redriven.
	Letter *DeadLetter `json:"letter,omitempty"`
}

// Sightings tells what each consumer of a database knows of the event with an id of
// a source. Without the source only dead letters can be found. It changes nothing
// and no inbox needs to run. An empty schema means "inbox". The consumer's grants
// are enough.
func Sightings(ctx context.Context, pool *pgxpool.Pool, schema, source, id string) ([]Sighting, error) {
	letters := map[string]DeadLetter{}
	for _, state := range []string{stateRedriven, stateDiscarded, ""} { // what waits counts most
		found, err := DeadLetters(ctx, pool, schema, DeadFilter{ID: storable(id), Source: storable(source), State: state}, 0, 100)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			if last, ok := letters[d.Consumer]; !ok || state == "" || d.N > last.N {
				letters[d.Consumer] = d
			}
		}
	}
	list := []Sighting{}
	if source == "" {
		for _, consumer := range slices.Sorted(maps.Keys(letters)) {
			d := letters[consumer]
			list = append(list, sighting(consumer, SeenHandled, &d))
		}
		return list, nil
	}
	memories, err := dedup.Remembered(ctx, pool, schema, dedup.Key{Source: source, ID: id})
	if err != nil {
		return nil, fmt.Errorf("sightings: %w", err)
	}
	for _, m := range memories {
		state := SeenNot
		switch {
		case m.Handled:
			state = SeenHandled
		case m.Forgotten:
			state = SeenForgotten
		}
		if d, ok := letters[m.Consumer]; ok {
			list = append(list, sighting(m.Consumer, state, &d))
		} else {
			list = append(list, sighting(m.Consumer, state, nil))
		}
	}
	return list, nil
}

// sighting: a dead letter says more than the claim that was made with it.
func sighting(consumer, state string, d *DeadLetter) Sighting {
	switch {
	case d == nil:
	case d.State == stateRedriven:
		state = SeenHandled
	default:
		state = d.State
	}
	return Sighting{Consumer: consumer, State: state, Letter: d}
}
