package page

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/relay"
)

func statusOf(names ...string) relay.Status {
	var st relay.Status
	for _, name := range names {
		st.Pipelines = append(st.Pipelines, relay.PipelineStatus{Name: name})
	}
	return st
}

// An hour of points is kept, of pipelines that are there, ten seconds apart.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newWatched(Database{})
	now := time.Unix(1_000_000, 0)
	for i := range 5000 {
		st := statusOf("kafka", "gone")
		st.Pipelines[0].Backlog = int64(i)
		w.took(now.Add(time.Duration(i)*2*time.Second), st, nil)
	}
	w.mu.Lock()
	points := w.since(0)["kafka"]
	w.mu.Unlock()
	require.Len(t, points, 360)
	for i, p := range points[1:] {
		require.EqualValues(t, 10, p.At-points[i].At)
	}
	require.EqualValues(t, 1_000_000+4995*2, points[359].At, "the last ones")
	require.EqualValues(t, 4995, points[359].Backlog)
	w.took(now.Add(24*time.Hour), statusOf("kafka"), nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NotContains(t, w.since(0), "gone")
	require.LessOrEqual(t, cap(w.history["kafka"]), 1000)
}

// A browser that polls gets each point once.
func TestOnlyNewPointsAreSent(t *testing.T) {
	t.Parallel()
	p := New(Config{Databases: []Database{{Status: healthy}}, Logger: quiet(t)})
	w := p.databases[0]
	began := time.Unix(1_000_000, 0)
	for i := range 3 {
		w.took(began.Add(time.Duration(i)*historyStep), statusOf("kafka"), nil)
	}
	body := get(t, p, "/api/status?after=1000000").Body.String()
	require.Contains(t, body, `"history":{"kafka":[[1000010,0,0,0],[1000020,0,0,0]]}`)
	body = get(t, p, "/api/status?after=1000020").Body.String()
	require.Contains(t, body, `"history":{"kafka":[]}`)
}

// While somebody looks the status is read again; else hardly ever.
func TestLookingWakes(t *testing.T) {
	t.Parallel()
	reads := make(chan struct{})
	p := New(Config{Logger: quiet(t), Databases: []Database{{Status: func(ctx context.Context) (relay.Status, error) {
		select {
		case reads <- struct{}{}:
		case <-ctx.Done():
		}
		return statusOf("kafka"), nil
	}}}})
	p.live, p.background = 0, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	<-reads
	require.Equal(t, http.StatusOK, get(t, p, "/api/status").Code)
	<-reads // or the test ends by its time limit
	cancel()
	<-done
}

// answered is a part of what the browser gets.
type answered struct {
	Databases []databaseLine
	Shown     struct {
		Error      string
		AgeSeconds float64 `json:"age_seconds"`
		Status     *relay.Status
	}
}

// A database that does not answer is said to be away, with what was known before;
// others are read meanwhile.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	read := make(chan struct{})
	p := New(Config{Logger: quiet(t), Databases: []Database{
		{Name: "silent", Status: func(ctx context.Context) (relay.Status, error) {
			<-ctx.Done()
			return relay.Status{}, ctx.Err()
		}},
		{Name: "shop", Status: func(ctx context.Context) (relay.Status, error) {
			select {
			case read <- struct{}{}:
			case <-ctx.Done():
			}
			return statusOf("kafka"), nil
		}},
	}})
	p.background = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	<-read
	<-read
	cancel()
	<-done
	w := p.databases[1]
	w.took(time.Now().Add(-time.Minute), statusOf("kafka"), nil)
	w.took(time.Now(), relay.Status{}, errors.New("connection refused"))
	o := decode[answered](t, get(t, p, "/api/status?database=shop"))
	require.Equal(t, "connection refused", o.Shown.Error)
	require.Equal(t, "kafka", o.Shown.Status.Pipelines[0].Name)
	require.InDelta(t, 60, o.Shown.AgeSeconds, 30)
	require.Equal(t, []databaseLine{{"silent", ""}, {"shop", "bad"}}, o.Databases)
	require.Nil(t, decode[answered](t, get(t, p, "/api/status")).Shown.Status, "the first one, never read")
}

// The error of this relay explains what is seen, while it is new.
func TestLastErrors(t *testing.T) {
	t.Parallel()
	failed := map[string]LastError{
		"kafka": {"connection refused", time.Now().Add(-5 * time.Second)}, "old": {"long ago", time.Now().Add(-11 * time.Minute)},
	}
	p := New(Config{Logger: quiet(t), Databases: []Database{{Status: healthy, LastErrors: func() map[string]LastError { return failed }}}})
	p.databases[0].took(time.Now(), statusOf("kafka", "old", "well"), nil)
	got := decode[struct {
		Shown struct{ Pipelines map[string]pipelineView }
	}](t, get(t, p, "/api/status")).Shown.Pipelines
	require.Equal(t, "connection refused", got["kafka"].LastError)
	require.InDelta(t, 5, got["kafka"].LastErrorSince, 4)
	require.Empty(t, got["old"].LastError)
	require.Empty(t, got["well"].LastError)
}

// Two hundred databases are not asked two hundred times as often as one.
func TestManyDatabasesAreReadLessOften(t *testing.T) {
	t.Parallel()
	one, many := New(Config{Databases: make([]Database, 1)}), New(Config{Databases: make([]Database, 200)})
	require.Equal(t, 10*time.Second, one.background)
	require.Equal(t, 100*time.Second, many.background)
	require.Equal(t, 2*time.Second, one.live)
	require.Equal(t, 10*time.Second, many.live)
}
