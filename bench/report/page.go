package report

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/bench"
)

// page is RESULTS.md.
type page struct {
	merged
	goals []judged
	plots []plot
}

// section is what is shown of one bench.
type section struct {
	bench string
	title string
	text  string
	// split gives what results of different circumstances in a table each; else there is one.
	split bool
	fold  bool // tables are folded away until somebody asks for them
}

func sections() []section {
	return []section{
		{"storm", "The boot storm", "All nodes mount at once and make the calls of a recorded boot.", true, false},
		{"race", "The race", "The servers take turns at the same work on the same tree; go-nfs was measured apart, because it goes on with what it has not answered in time.\n" +
			"Where the page cache is cold, it was dropped before each run; the names and attributes of rootnfsd, which it has mapped, stay in memory all the same, as does its knowledge of what content it has compared with its digest.", true, true},
		{"guest", "In a guest", "Against the kernel's own server in a QEMU guest, and fio over a mount by a real kernel.", false, false},
		{"counted", "In a guest, by instructions", "The same race on one processor, by a clock that counts instructions: what the code of the two servers, of the kernel below them and of their client comes to. " +
			"The emulator forgets its translations of addresses whenever another process runs, which the kernel's server is not and a processor does not; instructions leave that out.", false, false},
		{"homes", "Homes", "The calls of a Linux client that writes to its home, on directories of one file system. In the first rows of each work both servers bring to the disk what they\n" +
			"answer; what is *not synced* acknowledges changes of names and attributes that a power cut loses.", true, false},
		{"tftp", "Boot files", "All nodes fetch the same file over TFTP at once, and compare every byte; a call is a block. The least share is what the node had that had least when the first had all,\n" +
			"beside an even share. Windows are for those who ask for them, which Raspberry Pis do not, and of servers that grant none there is nothing to tell.", true, false},
		{"store", "The store", "Sealing and opening versions, and what their size costs.", false, false},
		{"import", "Importing", "Archives and disk images, compressed, into a new store: the whole command, lint among it. Beside it the program that takes the compression off, with one thread,\n" +
			"into /dev/null, and into a file that is synced.", false, false},
		{"rollout", "Promotes under load", "", false, false},
		{"cold", "Cold page cache", "", false, false},
		{"boot", "Client options", "Calls and seconds of one boot by the mount options of the client.", false, false},
	}
}

// all are the sections, and one for each bench that has none of its own.
func (p page) all() []section {
	all := sections()
	for _, r := range p.results {
		if !slices.ContainsFunc(all, func(s section) bool { return s.bench == r.Bench }) {
			all = append(all, section{bench: r.Bench, title: escape(r.Bench)})
		}
	}
	return all
}

func (p page) markdown() []byte {
	var b bytes.Buffer
	b.WriteString("# Results\n\nWritten by `rootnfsd bench report` from what was measured.\n\n")
	p.writeSources(&b)
	for _, s := range p.headlines() {
		b.WriteString("- " + s + "\n")
	}
	p.writeGoals(&b)
	b.WriteString("\n## How to read the tables\n\n" +
		"A figure is the median of several runs, in which the servers took turns; the least and the most are in brackets.\n" +
		"CPU and memory are the server's alone. `limit` is a bare program that sends as many bytes in as many replies and knows nothing of NFS.\n" +
		"Client and servers share the cores, and the client's work is the same for all: ratios of times are smaller than those of the servers' own work, which CPU tells.\n" +
		"A server with errors has not done all of the work. A goal of which there were fewer runs than there should be says so.\n")
	for _, s := range p.all() {
		p.writeSection(&b, s)
	}
	p.writeServers(&b)
	b.WriteString("\n## Again\n\n`make bench` measures everything and writes this page. Reports that were saved with `--json` are merged with\n" +
		"`rootnfsd bench report FILE...`; of what several have measured the newest is shown.\n")
	return b.Bytes()
}

// writeSources says when and where things were measured.
func (p page) writeSources(b *bytes.Buffer) {
	head := []string{"measured", "results", "processor", "cores", "memory", "kernel", "system", "built by"}
	rule := []string{"---", "---:", "---", "---:", "---:", "---", "---", "---"}
	var rows [][]string
	for _, s := range p.sources {
		m := s.machine
		rows = append(rows, []string{
			s.date.UTC().Format("2006-01-02 15:04"), whole(s.results), escape(m.CPU), whole(m.Cores),
			quantity(size).text(float64(m.Memory)), escape(m.Kernel), escape(m.System), escape(m.Go),
		})
	}
	if rows != nil {
		b.WriteString(grid(head, rule, rows) + "\n")
	}
}

func (p page) writeGoals(b *bytes.Buffer) {
	n := tally(p.goals)
	fmt.Fprintf(b, "\n## Goals\n\nOf %d goals %d are reached, %d missed and %d not measured; of %d a test makes sure.\n\n",
		len(p.goals), n[reached], n[missed], n[notMeasured], n[byTest])
	head := []string{"what", "goal", "rootnfsd", "other", "ratio", ""}
	rule := []string{"---", "---", "---:", "---:", "---:", "---"}
	var rows [][]string
	for _, g := range p.goals {
		what, state := g.what, string(g.state)
		if g.runs > 0 && g.runs < enoughRuns {
			what += fmt.Sprintf(" [%d of %d runs]", g.runs, enoughRuns)
		}
		if g.setting != "" {
			what += " (worst: " + g.setting + ")"
		}
		if g.state == reached || g.state == missed {
			state = "**" + state + "**"
		}
		rows = append(rows, []string{what, g.test.want(), g.ours, g.theirs, g.ratio, state})
	}
	b.WriteString(grid(head, rule, rows))
	p.writeReasons(b)
}

// writeReasons says what is known of the goals that are missed.
func (p page) writeReasons(b *bytes.Buffer) {
	for _, g := range p.goals {
		if g.state == missed && g.limit != "" {
			fmt.Fprintf(b, "\nWhy the %s is missed: %s\n", g.what, g.limit)
		}
	}
}

func (p page) writeSection(b *bytes.Buffer, s section) {
	results := p.results.where(func(r bench.Result) bool { return r.Bench == s.bench })
	if len(results) == 0 {
		return
	}
	b.WriteString("\n## " + s.title + "\n\n")
	if s.text != "" {
		b.WriteString(s.text + "\n\n")
	}
	for _, plot := range p.plots {
		if plot.bench == s.bench {
			fmt.Fprintf(b, "![%s](%s)\n\n", escape(plot.title), plot.path())
		}
	}
	if !s.split {
		b.WriteString(table(results))
		return
	}
	headings, of := groups(results, circumstances)
	for i, heading := range headings {
		if i > 0 {
			b.WriteByte('\n')
		}
		format := "### %s\n\n%s"
		if s.fold {
			format = "<details><summary>%s</summary>\n\n%s\n</details>\n"
		}
		fmt.Fprintf(b, format, escape(heading), table(of[heading], "work", "page cache", "added round trip"))
	}
}

func (p page) writeServers(b *bytes.Buffer) {
	if len(p.servers) == 0 {
		return
	}
	b.WriteString("\n## The servers\n\n")
	byName := func(a, b string) int { return compareListed(serverOrder, a, b) }
	for _, name := range slices.SortedFunc(maps.Keys(p.servers), byName) {
		for _, description := range p.servers[name] {
			b.WriteString("- **" + escape(name) + "**: " + escape(strings.TrimSpace(description)) + "\n")
		}
	}
}
