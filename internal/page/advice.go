package page

import (
	"fmt"
	"strconv"
	"time"

	"github.com/outboxkit/outboxkit/relay"
)

// Levels of advice.
const (
	levelWarn = "warn" // mends itself, or will need somebody
	levelBad  = "bad"  // needs somebody
)

// advice is something that is not as it should be, and what to do.
type advice struct {
	Level    string    `json:"level"`
	Text     string    `json:"text"`
	Commands []Command `json:"commands"`
}

// waitsLong is how old an event may be, with nothing else to see, before the page
// says so.
const waitsLong = time.Minute

// adviseOn says what is wrong with a pipeline, the worst first.
func adviseOn(p relay.PipelineStatus, command func(...string) string) []advice {
	list := []advice{}
	add := func(level, text string, commands ...Command) {
		list = append(list, advice{level, text, append([]Command{}, commands...)})
	}
	status := Command{"See owners, circuits and ages", command("status")}
	doctor := Command{"Look for the cause", command("doctor")}
	live := 0
	for _, o := range p.Owners {
		if o.Live {
			live++
		}
	}
	if p.Unowned > 0 && live == 0 {
		add(levelBad, fmt.Sprintf("No relay publishes it: %d shards have no owner. Start one, or see in its log why it does not take them.", p.Unowned), status, doctor)
	}
	for _, c := range p.Circuits {
		switch what := "topic " + c.Topic; {
		case c.Topic == "" && c.State == "recovering":
			add(levelWarn, fmt.Sprintf("The broker answers %s again, which sends more and more (recovering).", c.Instance), status)
		case c.Topic == "": // open or half-open: the text stays the same, or it would be read aloud at each probe
			add(levelBad, fmt.Sprintf("The broker does not answer %s. Nothing is lost and nothing is put aside: events wait, and the relay tries again by itself.", c.Instance), status, doctor)
		default:
			add(levelWarn, fmt.Sprintf("The broker refuses %s (%s, %s): its events are put aside and tried again by themselves. Does it exist, and may the relay write to it?", what, c.State, c.Instance),
				Command{"See the events and the errors", command("dlq", "list", "--pipeline", p.Name)}, doctor)
		}
	}
	if p.Parked.Dead > 0 {
		add(levelBad, fmt.Sprintf("%s events could not be published and wait for a person. Later ones of their keys wait behind them.", atLeast(p.Parked.Dead, p.Parked.Exact)),
			Command{"See them, and why", command("dlq", "list", "--pipeline", p.Name, "--state", "dead")})
	}
	if p.Unowned > 0 && live > 0 {
		add(levelWarn, fmt.Sprintf("%d shards have no living owner; another relay takes them over when the lease has run out.", p.Unowned), status)
	}
	if len(list) == 0 && p.OldestUnsentSeconds > waitsLong.Seconds() {
		add(levelWarn, fmt.Sprintf("The oldest event has waited for %s, and no circuit is open: the relay is slower than the writers, or just catches up.",
			(time.Duration(p.OldestUnsentSeconds)*time.Second).String()), status, doctor)
	}
	return list
}

func atLeast(n int64, exact bool) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:] // as the rest of the page writes numbers
	}
	if exact {
		return digits
	}
	return "At least " + digits
}

// worst is the level of the worst advice, "" if there is none.
func worst(list []advice) string {
	level := ""
	for _, a := range list {
		if a.Level == levelBad {
			return levelBad
		}
		level = levelWarn
	}
	return level
}
