package relay

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
)

// report is what a heartbeat tells of an instance beside that it lives: circuits are
// in its memory, and whoever asks for the status is another process. It costs no
// write of its own.
type report map[string]pipelineReport // by pipeline; those with nothing to say are left out

type pipelineReport struct {
	Rate    float64           `json:"rate,omitempty"`    // events a second
	Circuit string            `json:"circuit,omitempty"` // the broker's, unless closed
	Topics  map[string]string `json:"topics,omitempty"`  // circuits that are not closed
	More    int               `json:"more,omitempty"`    // such topics beyond reportedTopics
}

// reportedTopics bounds the row.
const reportedTopics = 10

func (s Stats) report() string {
	r := report{}
	for _, p := range s.Pipelines {
		pr := pipelineReport{Rate: math.Round(p.PublishedPerSecond*10) / 10}
		if p.Circuit != circuitClosed.String() {
			pr.Circuit = p.Circuit
		}
		for _, topic := range slices.Sorted(maps.Keys(p.TopicCircuits)) {
			if len(pr.Topics) == reportedTopics {
				pr.More = len(p.TopicCircuits) - reportedTopics
				break
			}
			if pr.Topics == nil {
				pr.Topics = map[string]string{}
			}
			pr.Topics[topic] = p.TopicCircuits[topic]
		}
		if pr.Rate > 0 || pr.Circuit != "" || pr.Topics != nil {
			r[p.Name] = pr
		}
	}
	text, _ := json.Marshal(r) // texts and numbers: cannot fail
	return string(text)
}

// CircuitStatus is a circuit that is not closed: an instance sends less than it
// could, or nothing but probes.
type CircuitStatus struct {
	Instance string `json:"instance"`
	Topic    string `json:"topic,omitempty"` // at the broker; "" = the broker's own circuit
	State    string `json:"state"`           // open, half-open or recovering
}

// reported takes up what a live instance has reported.
func (p *PipelineStatus) reported(instance string, r pipelineReport) {
	p.PublishedPerSecond += r.Rate
	if r.Circuit != "" {
		p.Circuits = append(p.Circuits, CircuitStatus{Instance: instance, State: r.Circuit})
	}
	for _, topic := range slices.Sorted(maps.Keys(r.Topics)) {
		p.Circuits = append(p.Circuits, CircuitStatus{Instance: instance, Topic: topic, State: r.Topics[topic]})
	}
	p.MoreCircuits += r.More
}
