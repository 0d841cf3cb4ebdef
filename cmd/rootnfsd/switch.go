package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/hostlist"
)

// promotion reads from the flags for whom a version is promoted, and how it is watched.
func (s *openedStore) promotion(c *cli.Context) (exports.Promotion, error) {
	p := exports.Promotion{By: operator(), Good: c.Duration("wait-good"), MaxBad: c.Int("max-bad")}
	switch {
	case p.Good < 0 || c.IsSet("wait-good") && p.Good < time.Second:
		return p, usageError(c, "--wait-good %s: want a second at least, such as 5m", p.Good)
	case p.MaxBad < 0 || c.IsSet("max-bad") && p.Good == 0:
		return p, usageError(c, "--max-bad N says how many nodes may fail while --wait-good watches them")
	case p.Good > 0 && servedBy(s.StateDir()) == 0:
		return p, errors.New("the server watches nodes, and none serves this store (rootnfsd serve)")
	}
	to := &exports.Partial{Percent: c.Float64("percent"), Labels: splitCommas(c.StringSlice("label"))}
	if c.IsSet("percent") && !(to.Percent > 0 && to.Percent <= 100) {
		return p, usageError(c, "--percent %g: want more than 0, and 100 at most", to.Percent)
	}
	if lists := c.StringSlice("nodes"); len(lists) > 0 {
		var err error
		if to.Nodes, err = hostlist.Expand(lists...); err != nil {
			return p, err
		}
	}
	if len(to.Nodes) == 0 && len(to.Labels) == 0 && to.Percent == 0 {
		return p, nil
	}
	p.To = to
	fleet, err := s.fleet(c.Context)
	if err != nil {
		return p, err
	}
	if err := unknownNodes(to.Nodes, fleet); err != nil {
		return p, err
	}
	to.Nodes = keysOf(to.Nodes, fleet)
	return p, unknownLabels(to.Labels, fleet)
}

// keysOf replaces addresses of nodes that have a name by that.
func keysOf(names []string, fleet []exports.NodeStatus) []string {
	keys := map[string]string{}
	for _, n := range fleet {
		for _, a := range addressesOf(&n) {
			keys[a] = n.Key()
		}
	}
	out := slices.Clone(names)
	for i, name := range out {
		if key := keys[name]; key != "" {
			out[i] = key
		}
	}
	return out
}

// previewPromote says what a promotion would do.
func (s *openedStore) previewPromote(c *cli.Context, name string, p exports.Promotion) error {
	info, err := s.info(name)
	switch {
	case err == nil:
		p.Ref = refOf(info)
	case s.hasTree(name):
		p.Ref = exports.Ref{Version: name} // without a digest: it is no version yet
		fmt.Fprintf(c.App.ErrWriter, "the tree %s would be sealed first\n", name)
	default:
		return err
	}
	before, changed, err := s.change(p)
	if err != nil {
		return explainPromote(err)
	}
	if c.Bool("json") {
		out := switchOf(before, p)
		out.Changed, out.Nodes, out.DryRun = len(changed) > 0, changed, true
		return writeJSON(c.App.Writer, out)
	}
	fmt.Fprintf(c.App.Writer, "would be done: %s\n", changeLine(before, p, changed))
	return nil
}

// announceSwitch says what a promotion changes for how many nodes, before it happens.
func (s *openedStore) announceSwitch(c *cli.Context, p exports.Promotion) error {
	before, changed, err := s.change(p)
	if err != nil {
		return explainPromote(err)
	}
	if len(before.Stack) > 0 && !c.Bool("json") {
		fmt.Fprintln(c.App.ErrWriter, changeLine(before, p, changed))
	}
	return nil
}

// change returns the rollout, and which nodes will get another version after a promotion.
func (s *openedStore) change(p exports.Promotion) (before exports.Rollout, changed []string, err error) {
	before, inv, seen, err := s.known()
	if err != nil {
		return before, nil, err
	}
	after, err := before.With(p)
	if err != nil {
		return before, nil, err
	}
	now := time.Now()
	changed = []string{}
	was := exports.Fleet(&before, inv, seen, now)
	for i, n := range exports.Fleet(&after, inv, seen, now) {
		if n.PromisedDigest != was[i].PromisedDigest {
			changed = append(changed, n.Key())
		}
	}
	return before, changed, nil
}

func changeLine(before exports.Rollout, p exports.Promotion, changed []string) string {
	who := "all nodes"
	if p.To != nil {
		who = p.To.String()
	}
	line := fmt.Sprintf("%s for %s: %s will get another version than now", p.Version, who, plural(len(changed), "known node"))
	const few = 8
	if n := len(changed); n > 0 && n <= few {
		line += " (" + hostlist.Compress(changed) + ")"
	}
	if gone := takenBack(before, p); gone != nil {
		line += fmt.Sprintf("; %s is taken back from %s", gone.Version, gone)
	}
	return line
}

// takenBack is what some nodes alone get before a promotion and nobody after it, nil if
// there is no such version.
func takenBack(before exports.Rollout, p exports.Promotion) *exports.Partial {
	if gone := before.Partial; gone != nil && p.To == nil && !p.Ref.Is(gone.Ref) {
		return gone
	}
	return nil
}

// explainPromote says what to do about an error of a promotion.
func explainPromote(err error) error {
	if errors.Is(err, exports.ErrNothingForAll) {
		return fmt.Errorf("%w (rootnfsd promote VERSION)", err)
	}
	return err
}

// switchJSON is what promote and rollback print with --json.
type switchJSON struct {
	Before       string   `json:"before"`
	Promoted     string   `json:"promoted"`
	For          string   `json:"for,omitempty"`        // the nodes, if not all
	TakenBack    string   `json:"taken_back,omitempty"` // what a promotion for all took from some nodes
	Changed      bool     `json:"changed"`
	Nodes        []string `json:"nodes,omitempty"` // that would get another version
	RebootNeeded []string `json:"reboot_needed"`   // nodes on another version than they are promised
	DryRun       bool     `json:"dry_run,omitempty"`
	// Outcome is what became of a promotion that was watched, and Note says it in words.
	Outcome outcome `json:"outcome,omitempty"`
	Note    string  `json:"note,omitempty"`
}

// switchOf is what is to be said of a promotion of which nothing else is known.
func switchOf(before exports.Rollout, p exports.Promotion) switchJSON {
	promoted, _ := before.Promoted()
	out := switchJSON{Before: promoted.Version, Promoted: p.Version, RebootNeeded: []string{}}
	if p.To != nil {
		out.For = p.To.String()
	}
	if gone := takenBack(before, p); gone != nil {
		out.TakenBack = gone.Version
	}
	return out
}

// waitingForBoot adds the nodes that have to reboot to get what they are promised.
func (out *switchJSON) waitingForBoot(fleet []exports.NodeStatus) {
	for _, n := range fleet {
		if n.RebootNeeded {
			out.RebootNeeded = append(out.RebootNeeded, n.Key())
		}
	}
}

// print says in words what is promoted now, and who has to reboot for it.
func (out *switchJSON) print(w io.Writer) {
	switch {
	case !out.Changed:
		fmt.Fprintf(w, "%s is promoted already\n", out.Promoted)
	case out.For != "":
		fmt.Fprintf(w, "promoted %s for %s (the others go on with %s)\n", out.Promoted, out.For, out.Before)
	case out.TakenBack != "":
		fmt.Fprintf(w, "promoted %s for all (%s is taken back from those that got it)\n", out.Promoted, out.TakenBack)
	case out.Before == "":
		fmt.Fprintf(w, "promoted %s\n", out.Promoted)
	default:
		fmt.Fprintf(w, "promoted %s (before: %s)\n", out.Promoted, out.Before)
	}
	printWaiting(w, out.RebootNeeded)
}

func printWaiting(w io.Writer, nodes []string) {
	if n := len(nodes); n > 0 {
		fmt.Fprintf(w, "%s running another version until rebooted (rootnfsd nodes)\n", plural(n, "node")+map[bool]string{true: " is", false: " are"}[n == 1])
	}
}

// outcome is what became of a promotion that is watched.
type outcome string

const (
	outcomeGood      outcome = "good"
	outcomeTakenBack outcome = "taken back"
	outcomeBad       outcome = "bad"       // and there was nothing to go back to
	outcomeUndecided outcome = "undecided" // the command was interrupted, or somebody promoted something else
)

// err is the error that a command ends with.
func (o outcome) err(version, note string) error {
	switch o {
	case outcomeGood:
		return nil
	case outcomeUndecided:
		return statusError{fmt.Errorf("undecided: %s", note), 2}
	case outcomeBad:
		return fmt.Errorf("%s is bad: %s", version, note)
	}
	return fmt.Errorf("%s: %s", o, note)
}

// follow waits until it is decided what becomes of a promotion that the server watches, or until
// ctx ends, and says meanwhile how far it is.
func (s *openedStore) follow(ctx context.Context, ref exports.Ref) (o outcome, note string, err error) {
	line := newStatusLine()
	defer line.clear()
	for {
		rollout, err := s.state.Rollout()
		if err != nil {
			return "", "", err
		}
		if rollout.Watch == nil || !rollout.Watch.Is(ref) {
			o, note = outcomeOf(rollout, ref)
			return o, note, nil
		}
		line.show(s.watchLine(ctx, rollout.Watch))
		select {
		case <-ctx.Done():
			return outcomeUndecided, "the server goes on watching (rootnfsd status, rootnfsd history)", nil
		case <-time.After(time.Second):
		}
	}
}

// watchLine says how far a rollout has come that is watched.
func (s *openedStore) watchLine(ctx context.Context, w *exports.Watch) string {
	booted, good, bad := w.Tally()
	promised := 0
	if fleet, err := s.fleet(ctx); err == nil {
		for _, n := range fleet {
			if n.PromisedDigest == w.Digest.String() && n.Why != exports.ByCommandLine {
				promised++
			}
		}
	}
	return fmt.Sprintf("%s: of %s %d booted it, %d good, %d bad; each is watched for %s", w.Version, plural(promised, "node"), booted, good, bad, w.Good)
}

// outcomeOf says how a rollout went that is not watched any more.
func outcomeOf(r exports.Rollout, ref exports.Ref) (outcome, string) {
	for _, e := range slices.Backward(r.History) {
		switch {
		case e.Action == "good" && ref.Is(e.Ref):
			return outcomeGood, e.Note
		case e.Action == "bad" && ref.Is(e.Ref):
			return outcomeBad, e.Note
		case e.Action == "rollback":
			return outcomeTakenBack, cmp.Or(e.Note, "by "+e.By)
		case e.Action == "promote" && !ref.Is(e.Ref):
			return outcomeUndecided, fmt.Sprintf("%s promoted %s meanwhile", e.By, e.Version)
		}
	}
	return outcomeUndecided, "the history does not tell"
}
