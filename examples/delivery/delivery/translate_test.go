package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/examples/delivery/events"
)

// What the flights of the example do not meet.
func TestReportsThatDoNotFit(t *testing.T) {
	report := func(drone string, s events.Status) events.DroneStatus {
		return events.DroneStatus{DroneID: drone, DeliveryID: "d", Status: s}
	}
	for name, tt := range map[string]struct {
		before delivery
		report events.DroneStatus
		after  delivery
		event  string
		err    string
	}{
		"nobody was assigned":  {delivery{}, report("a", events.Flying), delivery{}, "", "no drone was assigned"},
		"an unknown status":    {delivery{created, "a"}, report("a", "HOVERING"), delivery{created, "a"}, "", "unknown status HOVERING"},
		"of the drone before":  {delivery{inTransit, "b"}, report("a", events.DroppedOff), delivery{inTransit, "b"}, "", ""},
		"after the end":        {delivery{completed, "a"}, report("a", events.Recalled), delivery{completed, "a"}, "", ""},
		"flies after all":      {delivery{waiting, "a"}, report("a", events.Flying), delivery{inTransit, "a"}, "delivery.in_transit", ""},
		"waits for the second": {delivery{waiting, "a"}, report("b", events.Assigned), delivery{created, "b"}, "delivery.rescheduled", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := tt.before
			draft, happened, err := d.apply(tt.report)
			require.Equal(t, tt.after, d)
			require.Equal(t, tt.event != "", happened)
			require.Equal(t, tt.event, draft.Type.Name)
			if tt.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.err)
			}
		})
	}
}
