package inbox

// share is what a type's messages have of the room for messages in flight. It
// belongs to the budget, whose lock guards it. Nil takes what there is.
type share struct {
	count int
	bytes int64
}

// shareOfFree is how much a type may have, in units of what it leaves free. So one
// type alone gets seven eighths; several that are stuck leave less, but always
// something, and what is not stuck goes on in it.
const shareOfFree = 7

// newShares returns the shares of the types by name; nil if there is but one type,
// for which all the room is.
func newShares(handlers map[string]handler) map[string]*share {
	if len(handlers) < 2 {
		return nil
	}
	shares := make(map[string]*share, len(handlers))
	for name := range handlers {
		shares[name] = &share{}
	}
	return shares
}

func (s *share) add(count int, bytes int64) {
	if s != nil {
		s.count += count
		s.bytes += bytes
	}
}

// leaves reports whether of, with size bytes more, leaves enough for others.
func (b *budget) leaves(size int64, of *share) bool {
	return of == nil || of.count == 0 ||
		of.count < shareOfFree*(b.maxCount-b.count) && of.bytes+size <= shareOfFree*(b.maxBytes-b.bytes)
}
