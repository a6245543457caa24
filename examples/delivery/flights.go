package main

import (
	"fmt"
	"time"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
	"github.com/outboxkit/outboxkit/examples/delivery/fleet"
	"github.com/outboxkit/outboxkit/examples/delivery/verdict"
)

// course is what drones report about one delivery, and what must become of it:
// written by hand, not asked of the delivery service.
type course []struct {
	second  bool // it is the second drone that reports
	status  events.Status
	happens string // to the delivery, as in the history; "" if nothing
}

var courses = []course{
	{
		{false, events.Assigned, "created"}, {false, events.Flying, "in transit"}, {false, events.Flying, ""},
		{false, events.Flying, ""}, {false, events.DroppedOff, "completed"},
	},
	{ // headwind
		{false, events.Assigned, "created"}, {false, events.Flying, "in transit"}, {false, events.Delayed, "rescheduled"},
		{false, events.Flying, ""}, {false, events.Delayed, "rescheduled"}, {false, events.DroppedOff, "completed"},
	},
	{ // another drone takes over
		{false, events.Assigned, "created"}, {false, events.Flying, "in transit"}, {false, events.Grounded, ""},
		{true, events.Assigned, "rescheduled"}, {false, events.Grounded, ""}, {true, events.Flying, "in transit"},
		{true, events.DroppedOff, "completed"},
	},
	{ // recalled, and on its way home
		{false, events.Assigned, "created"}, {false, events.Flying, "in transit"}, {false, events.Recalled, "cancelled"},
		{false, events.Flying, ""},
	},
}

// longest is the number of reports in the longest course.
const longest = 7

// flight is one delivery's reports, in waves that end together: a report and the
// positions after it.
type flight struct {
	script verdict.Script
	waves  [longest][]fleet.Report
	status int // reports that are no positions
}

// flights plans n deliveries, by a drone each and a spare one for some.
func flights(n int) []flight {
	said := map[string]int{} // reports by drone
	next := func(drone string) string {
		said[drone]++
		return fmt.Sprintf("%s/%d", drone, said[drone])
	}
	all := make([]flight, n)
	for i := range all {
		all[i].script = verdict.Script{Delivery: fmt.Sprintf("delivery-%d", i+1), Request: fmt.Sprintf("request-%d", i+1)}
	}
	began := time.Now().Truncate(time.Minute)
	for wave := range longest { // a drone's numbers are in the order of its reports
		for i := range all {
			f, c := &all[i], courses[i%len(courses)]
			at := wave - (longest - len(c))
			if at < 0 {
				continue
			}
			f.status++
			drone := i + 1
			if c[at].second {
				drone = n + i/len(courses) + 1 // a spare one
			}
			name := fmt.Sprintf("drone-%d", drone)
			report := fleet.Report{ID: next(name), Drone: name, Request: f.script.Request}
			report.Event = statusType(drone).New(events.DroneStatus{
				DroneID: name, DeliveryID: f.script.Delivery, Status: c[at].status,
				ArrivesAt: began.Add(time.Duration(20+i%7+10*at) * time.Minute), Battery: 95 - 9*at,
			})
			f.waves[wave] = append(f.waves[wave], report)
			if c[at].happens != "" {
				f.script.Steps = append(f.script.Steps, verdict.Step{What: c[at].happens, Cause: report.ID})
			}
			if c[at].status == events.Flying {
				f.waves[wave] = append(f.waves[wave], position(f.script, name, next(name), i, at))
			}
		}
	}
	return all
}

// statusType is what a drone's firmware writes: every second one is old.
func statusType(drone int) event.Type[events.DroneStatus] {
	if drone%2 == 0 {
		return events.DroneStatusReportedByOldFirmware
	}
	return events.DroneStatusReported
}

func position(s verdict.Script, drone, id string, i, at int) fleet.Report {
	return fleet.Report{ID: id, Drone: drone, Request: s.Request, Event: events.DronePositionReported.New(events.DronePosition{
		DroneID: drone, DeliveryID: s.Delivery, Latitude: 47.6 + float64(i)/1000, Longitude: -122.3 + float64(at)/100,
	})}
}
