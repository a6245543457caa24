package avro

// kind is the type of a schema node.
type kind uint8

const (
	kNull kind = iota
	kBoolean
	kInt
	kLong
	kFloat
	kDouble
	kBytes
	kString
	kFixed
	kEnum
	kArray
	kMap
	kUnion
	kRecord
)

var kindNames = [...]string{
	"null", "boolean", "int", "long", "float", "double", "bytes", "string",
	"fixed", "enum", "array", "map", "union", "record",
}

func (k kind) String() string { return kindNames[k] }

// node is one type of a schema. References to named types are pointers, so the
// nodes of a recursive schema form a cycle. Nodes do not change after parsing.
type node struct {
	kind    kind
	isError bool     // a record declared as "error"; matters to the canonical form only
	name    string   // full name of a named type
	aliases []string // full names

	logical   string // logicalType if we know it, else ""
	precision int    // of a decimal
	scale     int    // of a decimal

	size     int      // of a fixed, in bytes
	symbols  []string // of an enum
	def      string   // default symbol of an enum, "" if none
	item     *node    // items of an array, values of a map
	branches []*node  // of a union
	fields   []field  // of a record

	min int // the fewest bytes that a value takes, at most maxMin
}

type field struct {
	name    string
	aliases []string
	typ     *node
	hasDef  bool
	def     any // decoded JSON, numbers as json.Number
}

// maxMin is where the sum of minimum sizes stops: large enough to bound counts,
// small enough never to overflow.
const maxMin = 1 << 20

// measure fills in min below n. A type that contains itself without a union or
// an array between has no finite value; it counts as 0 and the guard's depth
// limit stops it.
func measure(n *node, seen map[*node]bool) int {
	if seen[n] {
		return n.min
	}
	seen[n] = true
	switch n.kind {
	case kNull:
	case kFloat:
		n.min = 4
	case kDouble:
		n.min = 8
	case kFixed:
		n.min = min(n.size, maxMin)
	case kArray, kMap:
		n.min = 1
		measure(n.item, seen)
	case kUnion:
		n.min = 1 // the least there is, should a branch lead back here
		least := maxMin
		for _, b := range n.branches {
			least = min(least, measure(b, seen))
		}
		n.min = min(1+least, maxMin)
	case kRecord:
		sum := 0
		for _, f := range n.fields {
			sum = min(sum+measure(f.typ, seen), maxMin)
		}
		n.min = sum
	default: // boolean, int, long, bytes, string, enum
		n.min = 1
	}
	return n.min
}

// recursive reports whether n can contain a value of its own type, at any depth
// below, or contains a type that does.
func recursive(n *node) bool {
	const running, done = 1, 2
	state := map[*node]int{}
	var visit func(*node) bool
	visit = func(n *node) bool {
		switch state[n] {
		case running:
			return true
		case done:
			return false
		}
		state[n] = running
		for _, c := range n.children() {
			if visit(c) {
				return true
			}
		}
		state[n] = done
		return false
	}
	return visit(n)
}

func (n *node) children() []*node {
	switch n.kind {
	case kArray, kMap:
		return []*node{n.item}
	case kUnion, kRecord:
		return n.branches
	default:
		return nil
	}
}

// nullable returns the other branch of a union of null and one type, or nil.
func (n *node) nullable() *node {
	if n.kind != kUnion || len(n.branches) != 2 {
		return nil
	}
	switch {
	case n.branches[0].kind == kNull:
		return n.branches[1]
	case n.branches[1].kind == kNull:
		return n.branches[0]
	default:
		return nil
	}
}

// describe names a type for people: its full name, or its kind.
func (n *node) describe() string {
	if n.name != "" {
		return n.kind.String() + " " + n.name
	}
	if n.logical != "" {
		return n.kind.String() + " (" + n.logical + ")"
	}
	return n.kind.String()
}
