package inbox

// quota is what a type's messages have of the room for messages in flight. It
// belongs to the budget, whose lock guards it. Nil takes what there is.
type quota struct {
	count int
	bytes int64
}

// quotaOfFree is how much a type may have, in units of what it leaves free. So one
// type alone gets seven eighths; several that are stuck leave less, but always
// something, and what is not stuck goes on in it.
const quotaOfFree = 7

// newQuotas returns the quotas of the types by name; nil if there is but one type,
// for which all the room is.
func newQuotas(handlers map[string]handler) map[string]*quota {
	if len(handlers) < 2 {
		return nil
	}
	quotas := make(map[string]*quota, len(handlers))
	for name := range handlers {
		quotas[name] = &quota{}
	}
	return quotas
}

func (s *quota) add(count int, bytes int64) {
	if s != nil {
		s.count += count
		s.bytes += bytes
	}
}

// leaves reports whether of, with size bytes more, leaves enough for others.
func (b *budget) leaves(size int64, of *quota) bool {
	return of == nil || of.count == 0 ||
		of.count < quotaOfFree*(b.maxCount-b.count) && of.bytes+size <= quotaOfFree*(b.maxBytes-b.bytes)
}
