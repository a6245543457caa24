package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A document is also a script. A fenced block whose info string has "run" as its
// second word is run, in the order of the document:
//
//	```console run             commands after "$ ", each with what it prints
//	```sql run db=shop         statements; "--> a | b" are the rows of its queries
//	```yaml run file=x.yaml    a file in the folder of the commands
//
// A comment of HTML that begins with "run" is one that readers need not see, and may
// also be of kind topic, whose lines are Kafka topics to create.
//
// What is shown must be all that is printed, but for blanks and the lines of tables.
// "…" stands for any text, on a line of its own for any lines. A command ends with 0,
// unless "[exit 1]" stands below its output. One that ends in " &" runs on until
// "kill %1" or the end, and must then end with 0. With the word "eventually" a
// block's commands are repeated until they print what is shown.
type docBlock struct {
	line       int // of the fence, counted from 1
	kind       string
	args       map[string]string
	eventually bool
	body       string
}

var (
	fenceStart  = regexp.MustCompile("^```(\\S*) run\\b(.*)$")
	hiddenStart = regexp.MustCompile(`^<!-- run (\S+)(.*)$`)
	indentedRun = regexp.MustCompile("^\\s+```\\S* run\\b|^\\s+<!-- run\\b")
)

// parseDocument returns the blocks to be run.
func parseDocument(text string) ([]docBlock, error) {
	var blocks []docBlock
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		begin := i
		b, end, ok := docBlock{line: i + 1}, "```", true
		switch {
		case indentedRun.MatchString(lines[i]):
			return nil, fmt.Errorf("line %d: a block to be run is indented: it would be passed over", i+1)
		case fenceStart.MatchString(lines[i]):
			m := fenceStart.FindStringSubmatch(lines[i])
			b.kind = m[1]
			ok = b.options(m[2])
		case hiddenStart.MatchString(lines[i]):
			m := hiddenStart.FindStringSubmatch(lines[i])
			b.kind, end = m[1], "-->"
			ok = b.options(m[2])
		case strings.HasPrefix(lines[i], "```"): // not to be run
		default:
			continue
		}
		if !ok {
			return nil, fmt.Errorf("line %d: %q is not understood", i+1, lines[i])
		}
		for i++; i < len(lines) && lines[i] != end; i++ {
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the block has no end", begin+1)
		}
		if b.kind != "" {
			b.body = strings.Join(lines[begin+1:i], "\n") + "\n"
			blocks = append(blocks, b)
		}
	}
	return blocks, nil
}

func (b *docBlock) options(text string) bool {
	b.args = map[string]string{}
	for _, word := range strings.Fields(text) {
		name, value, ok := strings.Cut(word, "=")
		switch {
		case ok:
			b.args[name] = value
		case word == "eventually":
			b.eventually = true
		default:
			return false
		}
	}
	return true
}

// docCommand is one of a console's.
type docCommand struct {
	text       string
	background bool
	want       string
	exit       int
}

var shownExit = regexp.MustCompile(`^\[exit (\d+)\]$`)

func (b *docBlock) commands() ([]docCommand, error) {
	var list []docCommand
	lines := strings.Split(strings.TrimSuffix(b.body, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		text, isCommand := strings.CutPrefix(lines[i], "$ ")
		if isCommand {
			for strings.HasSuffix(text, `\`) && i+1 < len(lines) {
				i++
				text = strings.TrimSuffix(text, `\`) + lines[i]
			}
			c := docCommand{text: text}
			c.text, c.background = strings.CutSuffix(c.text, " &")
			list = append(list, c)
			continue
		}
		if len(list) == 0 {
			return nil, errors.New("it does not begin with a command, \"$ …\"")
		}
		last := &list[len(list)-1]
		if m := shownExit.FindStringSubmatch(lines[i]); m != nil {
			last.exit, _ = strconv.Atoi(m[1])
			continue
		}
		last.want += lines[i] + "\n"
	}
	return list, nil
}

var (
	frameOfTable = regexp.MustCompile(`^[─┌┐└┘├┤┬┴┼\s]*$`)
	blanks       = regexp.MustCompile(`[ \t]+`)
)

// essence is text without what only makes it look well. Empty lines are left out.
func essence(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(blanks.ReplaceAllString(line, " "))
		if !frameOfTable.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// asShown tells whether got is what a document shows.
func asShown(got, want string) bool {
	var pattern strings.Builder
	pattern.WriteString("^")
	for _, line := range essence(want) {
		if line == "…" {
			pattern.WriteString(`(?:.*\n)*`)
			continue
		}
		for i, part := range strings.Split(line, "…") {
			if i > 0 {
				pattern.WriteString(".*")
			}
			pattern.WriteString(regexp.QuoteMeta(part))
		}
		pattern.WriteString(`\n`)
	}
	pattern.WriteString("$")
	var text strings.Builder
	for _, line := range essence(got) {
		text.WriteString(line + "\n")
	}
	return regexp.MustCompile(pattern.String()).MatchString(text.String())
}

// wantRows are the rows that a block of SQL shows after "--> ".
func (b *docBlock) wantRows() (rows []string, shown bool) {
	for line := range strings.Lines(b.body) {
		if row, ok := strings.CutPrefix(line, "-->"); ok {
			shown = true
			rows = append(rows, strings.TrimSpace(row))
		}
	}
	return rows, shown
}
