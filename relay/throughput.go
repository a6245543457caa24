package relay

import "time"

// rateSeconds is how far back a throughput looks.
const rateSeconds = 10

// throughput counts in whole seconds.
type throughput struct {
	first   int64 // the second of the first count
	buckets [rateSeconds + 1]struct {
		second int64
		n      int
	}
}

func (r *throughput) add(now time.Time, n int) {
	second := now.Unix()
	if r.first == 0 {
		r.first = second
	}
	b := &r.buckets[second%int64(len(r.buckets))]
	if b.second != second {
		b.second, b.n = second, 0
	}
	b.n += n
}

// perSecond is the mean of the last seconds that are over, since the first count.
func (r *throughput) perSecond(now time.Time) float64 {
	second, sum := now.Unix(), 0
	over := min(second-r.first, rateSeconds)
	if r.first == 0 || over <= 0 {
		return 0
	}
	for _, b := range r.buckets {
		if b.second >= second-over && b.second < second {
			sum += b.n
		}
	}
	return float64(sum) / float64(over)
}
