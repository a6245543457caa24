package avro

// A change of a schema, and by hand what it breaks: backward is true where the new
// schema reads all data of the old one, forward where the old reads the new one's.
type change struct {
	name, old, new    string
	backward, forward bool
	// Where the registry thinks otherwise, why. theirs is its verdict.
	differs string
	theirs  [2]bool
}

const (
	tInt, tLong, tFloat, tDouble = `"int"`, `"long"`, `"float"`, `"double"`
	tStr, tBytes, tBool, tNull   = `"string"`, `"bytes"`, `"boolean"`, `"null"`
)

func enumOf(symbols, more string) string {
	return `{"type":"enum","name":"E","symbols":[` + symbols + `]` + more + `}`
}

func fixedOf(name, size string) string {
	return `{"type":"fixed","name":"` + name + `","size":` + size + `}`
}

func listOf(item string) string { return `{"type":"array","items":` + item + `}` }
func mapOf(value string) string { return `{"type":"map","values":` + value + `}` }

func inner(name string, fields ...string) string {
	s := `{"type":"record","name":"` + name + `","fields":[`
	for i, f := range fields {
		if i > 0 {
			s += ","
		}
		s += f
	}
	return s + `]}`
}

func logical(base, name, more string) string {
	return `{"type":` + base + `,"logicalType":"` + name + `"` + more + `}`
}

func renamed(name string, aliases string) string {
	return `{"type":"record","name":"` + name + `","namespace":"n"` + aliases + `,"fields":[` + fld("a", tInt) + `]}`
}

// of wraps types as the field "a" of a record, where most changes happen.
func of(name, before, after string, backward, forward bool) change {
	return change{name: name, old: rec(fld("a", before)), new: rec(fld("a", after)), backward: backward, forward: forward}
}

const (
	yes, no = true, false

	whyMeaning = "registries do not look at logical types: the same number would silently mean something else"
)

func (c change) registrySays(backward, forward bool, why string) change {
	c.differs, c.theirs = why, [2]bool{backward, forward}
	return c
}

var changes = []change{
	// Fields.
	{name: "nothing", old: rec(fld("a", tInt)), new: rec(fld("a", tInt, `,"doc":"x"`)), backward: yes, forward: yes},
	{name: "field added with default", old: rec(fld("a", tInt)), new: rec(fld("a", tInt), fld("b", tStr, `,"default":"-"`)), backward: yes, forward: yes},
	{name: "field added without default", old: rec(fld("a", tInt)), new: rec(fld("a", tInt), fld("b", tStr)), backward: no, forward: yes},
	{name: "nullable field added without default", old: rec(fld("a", tInt)), new: rec(fld("a", tInt), fld("b", `["null","string"]`)), backward: no, forward: yes},
	{name: "nullable field added with default", old: rec(fld("a", tInt)), new: rec(fld("a", tInt), fld("b", `["null","string"]`, `,"default":null`)), backward: yes, forward: yes},
	{name: "field removed with default", old: rec(fld("a", tInt), fld("b", tStr, `,"default":"-"`)), new: rec(fld("a", tInt)), backward: yes, forward: yes},
	{name: "field removed without default", old: rec(fld("a", tInt), fld("b", tStr)), new: rec(fld("a", tInt)), backward: yes, forward: no},
	{name: "one removed, one added", old: rec(fld("a", tInt), fld("b", tStr)), new: rec(fld("a", tInt), fld("c", tStr)), backward: no, forward: no},
	{name: "order of fields", old: rec(fld("a", tInt), fld("b", tStr)), new: rec(fld("b", tStr), fld("a", tInt)), backward: yes, forward: yes},
	{name: "field renamed", old: rec(fld("a", tInt)), new: rec(fld("b", tInt)), backward: no, forward: no},
	{name: "field renamed with alias", old: rec(fld("a", tInt)), new: rec(fld("b", tInt, `,"aliases":["a"]`)), backward: yes, forward: no},
	{name: "field renamed with alias and default", old: rec(fld("a", tInt, `,"default":0`)), new: rec(fld("b", tInt, `,"aliases":["a"],"default":0`)), backward: yes, forward: yes},
	{name: "default taken away", old: rec(fld("a", tInt, `,"default":0`)), new: rec(fld("a", tInt)), backward: yes, forward: yes},
	{name: "default changed", old: rec(fld("a", tInt, `,"default":0`)), new: rec(fld("a", tInt, `,"default":1`)), backward: yes, forward: yes},
	{name: "all fields gone", old: rec(fld("a", tInt, `,"default":0`)), new: rec(), backward: yes, forward: yes},

	// Promotions.
	of("int to long", tInt, tLong, yes, no),
	of("int to float", tInt, tFloat, yes, no),
	of("int to double", tInt, tDouble, yes, no),
	of("long to float", tLong, tFloat, yes, no),
	of("long to double", tLong, tDouble, yes, no),
	of("float to double", tFloat, tDouble, yes, no),
	of("string to bytes", tStr, tBytes, yes, yes),
	of("long to int", tLong, tInt, no, yes),
	of("double to long", tDouble, tLong, no, yes),
	of("int to string", tInt, tStr, no, no),
	of("boolean to int", tBool, tInt, no, no),
	of("string to boolean", tStr, tBool, no, no),
	of("bytes to fixed", tBytes, fixedOf("F", "4"), no, no),
	of("int to array", tInt, listOf(tInt), no, no),
	of("array to map", listOf(tInt), mapOf(tInt), no, no),
	of("string to enum", tStr, enumOf(`"A"`, ``), no, no),
	of("record to string", inner("I", fld("x", tInt)), tStr, no, no),
	of("record to map", inner("I", fld("x", tInt)), mapOf(tInt), no, no),

	// Unions.
	of("becomes nullable", tStr, `["null","string"]`, yes, no),
	of("no longer nullable", `["null","string"]`, tStr, no, yes),
	of("branch added", `["null","string"]`, `["null","string","int"]`, yes, no),
	of("branch removed", `["null","string","int"]`, `["null","string"]`, no, yes),
	of("order of branches", `["null","string"]`, `["string","null"]`, yes, yes),
	of("branch promoted", `["null","int"]`, `["null","long"]`, yes, no),
	of("branch changed", `["null","int"]`, `["null","string"]`, no, no),
	of("union of one", `["int"]`, tInt, yes, yes),
	of("union to what takes all", `["int","long"]`, tDouble, yes, no),
	of("promoted into a union", tInt, `["null","double"]`, yes, no),
	of("record into a union", inner("I", fld("x", tInt)), `["null",`+inner("I", fld("x", tInt))+`]`, yes, no),
	of("nullable record grows with default", `["null",`+inner("I", fld("x", tInt))+`]`, `["null",`+inner("I", fld("x", tInt), fld("y", tInt, `,"default":0`))+`]`, yes, yes),
	of("nullable record grows without default", `["null",`+inner("I", fld("x", tInt))+`]`, `["null",`+inner("I", fld("x", tInt), fld("y", tInt))+`]`, no, yes),
	of("union of records, one of them grows", `[`+inner("I", fld("x", tInt))+`,`+inner("J", fld("x", tInt))+`]`, `[`+inner("I", fld("x", tInt))+`,`+inner("J", fld("x", tInt), fld("y", tInt))+`]`, no, yes),
	of("record added to a union", `[`+inner("I", fld("x", tInt))+`]`, `[`+inner("I", fld("x", tInt))+`,`+inner("J", fld("y", tInt))+`]`, yes, no),

	// Enums.
	of("symbol added", enumOf(`"A","B"`, ``), enumOf(`"A","B","C"`, ``), yes, no),
	of("symbol removed", enumOf(`"A","B","C"`, ``), enumOf(`"A","B"`, ``), no, yes),
	of("symbol added, old has default", enumOf(`"A","B"`, `,"default":"A"`), enumOf(`"A","B","C"`, `,"default":"A"`), yes, yes),
	of("symbol removed, new has default", enumOf(`"A","B"`, ``), enumOf(`"A"`, `,"default":"A"`), yes, yes),
	of("symbol renamed", enumOf(`"A","B"`, ``), enumOf(`"A","C"`, ``), no, no),
	of("order of symbols", enumOf(`"A","B"`, ``), enumOf(`"B","A"`, ``), yes, yes),
	of("enum to string", enumOf(`"A","B"`, ``), tStr, no, no),

	// Fixed.
	of("fixed grows", fixedOf("F", "4"), fixedOf("F", "8"), no, no),
	of("fixed renamed", fixedOf("F", "4"), fixedOf("G", "4"), no, no),
	of("fixed renamed with alias", fixedOf("F", "4"), `{"type":"fixed","name":"G","size":4,"aliases":["F"]}`, yes, no),

	// Nested.
	of("items promoted", listOf(tInt), listOf(tLong), yes, no),
	of("items changed", listOf(tInt), listOf(tStr), no, no),
	of("values promoted", mapOf(tFloat), mapOf(tDouble), yes, no),
	of("items grow without default", listOf(inner("Item", fld("sku", tStr))), listOf(inner("Item", fld("sku", tStr), fld("qty", tInt))), no, yes),
	of("items shrink", listOf(inner("Item", fld("sku", tStr), fld("qty", tInt))), listOf(inner("Item", fld("sku", tStr))), yes, no),
	of("deep", listOf(mapOf(inner("I", fld("l", listOf(tInt))))), listOf(mapOf(inner("I", fld("l", listOf(tStr))))), no, no),
	of("items become nullable", listOf(tInt), listOf(`["null","int"]`), yes, no),

	// Names.
	{name: "record renamed", old: renamed("R", ``), new: renamed("S", ``), backward: no, forward: no},
	{name: "record renamed with alias", old: renamed("R", ``), new: renamed("S", `,"aliases":["R"]`), backward: yes, forward: no},
	{name: "namespace changed", old: rec(fld("a", tInt)), new: `{"type":"record","name":"m.R","fields":[` + fld("a", tInt) + `]}`, backward: yes, forward: yes},
	of("inner record renamed", inner("I", fld("x", tInt)), inner("J", fld("x", tInt)), no, no),
	{name: "one type used twice", old: rec(fld("a", inner("I", fld("x", tInt))), fld("b", `"I"`)), new: rec(fld("a", inner("I", fld("x", tInt), fld("y", tInt))), fld("b", `"I"`)), backward: no, forward: yes},

	// Recursion.
	{name: "recursive, unchanged", old: treeOf(fld("v", tInt)), new: treeOf(fld("v", tInt)), backward: yes, forward: yes},
	{name: "recursive, grows with default", old: treeOf(fld("v", tInt)), new: treeOf(fld("v", tInt), fld("w", tInt, `,"default":0`)), backward: yes, forward: yes},
	{name: "recursive, grows without default", old: treeOf(fld("v", tInt)), new: treeOf(fld("v", tInt), fld("w", tInt)), backward: no, forward: yes},

	// Top level.
	{name: "top level promoted", old: tInt, new: tLong, backward: yes, forward: no},
	{name: "top level to a record", old: tStr, new: rec(fld("a", tStr)), backward: no, forward: no},
	{name: "top level to a union", old: rec(fld("a", tInt)), new: `[` + rec(fld("a", tInt)) + `,"null"]`, backward: yes, forward: no},

	// Logical types.
	of("logical type added", tLong, logical(tLong, "timestamp-millis", ""), yes, yes),
	of("logical type added to int", tInt, logical(tInt, "date", ""), yes, yes),
	of("unit of time", logical(tLong, "timestamp-millis", ""), logical(tLong, "timestamp-micros", ""), no, no).registrySays(yes, yes, whyMeaning),
	of("time of day to date", logical(tInt, "time-millis", ""), logical(tInt, "date", ""), no, no).registrySays(yes, yes, whyMeaning),
	of("scale of a decimal", logical(tBytes, "decimal", `,"precision":9,"scale":2`), logical(tBytes, "decimal", `,"precision":9,"scale":4`), no, no).registrySays(yes, yes, whyMeaning),
	of("precision of a decimal", logical(tBytes, "decimal", `,"precision":9,"scale":2`), logical(tBytes, "decimal", `,"precision":18,"scale":2`), yes, yes),
}

func treeOf(fields ...string) string {
	return inner("Tree", append([]string{fld("children", listOf(`"Tree"`))}, fields...)...)
}
