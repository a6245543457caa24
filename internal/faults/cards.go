package faults

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// card is a kind of fault.
type card struct {
	kind              string
	often             int // in a pack
	shortest, longest time.Duration
	after             time.Duration // its targets are left alone, to recover
	amount            [2]int        // of step.Amount, from and below
	target            func(*planner) (name string, takes []string)
	do                func(*world, context.Context, step) error
}

// Kinds are the names of all kinds of fault that this machine can inflict.
func Kinds() []string {
	var kinds []string
	for _, c := range cards() {
		kinds = append(kinds, c.kind)
	}
	return kinds
}

func cardOf(kind string) card {
	all := cards()
	return all[slices.IndexFunc(all, func(c card) bool { return c.kind == kind })]
}

func process1(of []string) func(*planner) (string, []string) {
	return func(p *planner) (string, []string) {
		name := p.one(of)
		return name, []string{name}
	}
}

func fixed(name string) func(*planner) (string, []string) {
	return func(*planner) (string, []string) { return name, []string{name} }
}

func oneOf(names ...string) func(*planner) (string, []string) { return process1(names) }

func pairFor(kind string) func(*planner) (string, []string) {
	return func(p *planner) (string, []string) {
		from, to, _ := strings.Cut(p.pair(kind), ">")
		name := linkName(p.one(map[string][]string{"service": serviceNames, "relay": relayNames, "consumer": consumerNames}[from]), to)
		return name, []string{name}
	}
}

func cards() []card {
	const s = time.Second
	all := slices.Concat(processCards(), linkCards(), serverCards(), []card{
		{kind: "garbage", often: 1, target: oneOf(overKafka, overRabbitMQ), do: (*world).injectGarbage},
		{kind: "unroutable", often: 1, shortest: 2 * s, longest: 5 * s, target: fixed("rabbitmq"), do: (*world).unroutable},
		{kind: "late commit", often: 1, shortest: retention + slotTime + 4*s, longest: retention + slotTime + 8*s, target: func(*planner) (string, []string) {
			return "shop", append([]string{"shop"}, serviceNames...)
		}, do: (*world).lateCommit},
	})
	if postgres.ClockAvailable() == nil {
		all = append(all, card{kind: "clock jump", often: 2, shortest: 3 * s, longest: 8 * s, amount: [2]int{-300, 300}, target: oneOf("shop", "warehouse"), do: (*world).clockJump})
	}
	return all
}

func processCards() []card {
	const s = time.Second
	var all []card
	for _, k := range []struct {
		kind  string
		names []string
		often int
	}{{"service", serviceNames, 1}, {"relay", relayNames, 2}, {"consumer", consumerNames, 2}} {
		all = append(all,
			card{kind: "kill " + k.kind, often: k.often, after: 2 * s, target: process1(k.names), do: (*world).kill},
			card{kind: "freeze " + k.kind, often: k.often, shortest: 2 * s, longest: 10 * s, after: 5 * s, target: process1(k.names), do: (*world).freeze},
			card{kind: "redeploy " + k.kind, often: 1, after: 2 * s, target: process1(k.names), do: (*world).redeploy})
	}
	// What a relay has handed over and nobody has confirmed when it dies.
	return append(all, card{kind: "kill relay behind a half-open link", often: 1, shortest: 3 * s, longest: 4 * s, after: 3 * s,
		target: func(p *planner) (string, []string) {
			name := linkName(p.one(relayNames), p.one([]string{"kafka", "rabbitmq"}))
			relay, _, _ := strings.Cut(name, ">")
			return name, []string{name, relay}
		}, do: (*world).killBehindLink})
}

func linkCards() []card {
	const s = time.Second
	return []card{
		{kind: "cut", often: 3, longest: 6 * s, target: pairFor("cut"), do: (*world).cut},
		{kind: "delay", often: 3, shortest: 2 * s, longest: 8 * s, amount: [2]int{20, 400}, target: pairFor("delay"), do: (*world).delay},
		{kind: "half-open", often: 3, shortest: 2 * s, longest: 12 * s, target: pairFor("half-open"), do: (*world).halfOpen},
		{kind: "truncate", often: 3, shortest: 2 * s, longest: 6 * s, amount: [2]int{500, 40_000}, target: pairFor("truncate"), do: (*world).truncate},
	}
}

func serverCards() []card {
	const s = time.Second
	return []card{
		{kind: "crash postgres", often: 2, longest: 4 * s, after: 5 * s, target: oneOf("shop", "warehouse"), do: (*world).crash},
		{kind: "promote synchronous", often: 1, shortest: 1 * s, longest: 3 * s, after: 10 * s, target: oneOf("shop", "warehouse"), do: (*world).promote},
		// Of the shop alone: a consumer that forgets what it has acknowledged has lost it.
		{kind: "promote asynchronous", often: 1, shortest: 500 * time.Millisecond, longest: 1500 * time.Millisecond, after: 10 * s, target: fixed("shop"), do: (*world).promoteLagging},
		{kind: "restart broker", often: 1, longest: 3 * s, after: 5 * s, target: oneOf(overKafka, overRabbitMQ), do: (*world).restartBroker},
		{kind: "kill broker", often: 1, longest: 3 * s, after: 5 * s, target: oneOf(overKafka, overRabbitMQ), do: (*world).killBroker},
		{kind: "registry away", often: 1, shortest: 3 * s, longest: 10 * s, target: fixed("registry"), do: (*world).registryAway},
	}
}
