// Posix is the part of TestHomePosix that runs in a guest. It does each step of
// a table in two directories, one on a local file system and one on an NFS
// mount, and compares the answers and what has become of the files.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "agent":
		runAgent()
	case len(os.Args) == 2 && os.Args[1] == "euid":
		fmt.Print(os.Geteuid())
	default:
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, "posix:", err)
			os.Exit(1)
		}
	}
}

func run() error {
	local := flag.String("local", "", "`DIR` of a local file system, that everybody may write to")
	remote := flag.String("remote", "", "`DIR` of an NFS mount, that everybody may write to")
	squash := flag.String("squash", "none", "`WHO` is nobody over NFS: none or root")
	verbose := flag.Bool("v", false, "print all steps")
	flag.Parse()

	standIns := users()
	if *squash == "root" {
		standIns["root"] = nobody // as over NFS
	}
	here, err := newSide(*local, standIns)
	if err != nil {
		return err
	}
	there, err := newSide(*remote, users())
	if err != nil {
		return err
	}
	r := report{verbose: *verbose}
	for _, c := range table {
		if err := r.compare(c, here, there); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	fmt.Printf("%d steps, %d differences that are explained\n", r.steps, r.explained)
	if r.wrong > 0 {
		return fmt.Errorf("%d steps went wrong", r.wrong)
	}
	return nil
}

// report counts what came of the steps.
type report struct {
	verbose                 bool
	steps, explained, wrong int
}

// compare does the steps of a case on both sides, in a directory of its own, and
// prints those whose outcome is not what it should be.
func (r *report) compare(c scenario, here, there *side) error {
	for _, s := range []*side{here, there} {
		if err := s.begin(c.name); err != nil {
			return err
		}
	}
	for _, s := range c.steps {
		local, err := here.do(s)
		if err != nil {
			return err
		}
		remote, err := there.do(s)
		if err != nil {
			return err
		}
		want := local
		if s.why != "" {
			want = s.nfs
			r.explained++
		}
		r.steps++
		if r.verbose {
			fmt.Printf("%s: %s: %s: %s\n", c.name, s.who, s.do, local)
		}
		if remote != want || s.why != "" && want == local {
			r.wrong++
			fmt.Printf("%s: %s: %s\n\tover NFS: %s\n", c.name, s.who, s.do, remote)
			fmt.Printf("\tlocally:  %s\n", local)
			if s.why != "" {
				fmt.Printf("\texpected: %s, because %s\n", want, s.why)
			}
		}
	}
	return nil
}

// side is one of the two directories, and the users who work in it.
type side struct {
	dir    string
	agents map[string]*agent
	was    snapshot
}

func newSide(dir string, users map[string]*cred) (*side, error) {
	s := &side{dir: dir, agents: make(map[string]*agent)}
	for name, c := range users {
		a, err := newAgent(c)
		if err != nil {
			return nil, err
		}
		s.agents[name] = a
	}
	return s, nil
}

// begin makes root's directory for a case, which all may write to, and puts all
// users there.
func (s *side) begin(name string) error {
	dir := filepath.Join(s.dir, name)
	if err := s.must("root", "mkdir", dir, "777"); err != nil {
		return err
	}
	for who := range s.agents {
		if err := s.must(who, "begin", dir); err != nil {
			return err
		}
	}
	var err error
	s.was, err = s.look()
	return err
}

// must has a user do something that cannot fail.
func (s *side) must(who string, words ...string) error {
	a, err := s.agents[who].ask(words...)
	if err == nil && a.Text != "ok" {
		err = fmt.Errorf("%q: %s", words, a.Text)
	}
	return err
}

// do does a step and tells what came of it: the answer, and what has changed.
func (s *side) do(step step) (string, error) {
	if err := s.awaitClock(); err != nil {
		return "", err
	}
	a, err := s.agents[step.who].ask(step.words()...)
	if err != nil {
		return "", err
	}
	is, err := s.look()
	outcome := a.Text
	if !step.answer {
		outcome += s.was.changes(is)
	}
	s.was = is
	return outcome, err
}

// awaitClock returns when what happens next has a later time than all that has
// happened: the clock of a file system stands still for up to 10 ms.
func (s *side) awaitClock() error {
	for {
		a, err := s.agents["root"].ask("clock", filepath.Join(s.dir, "clock"))
		if err != nil {
			return err
		}
		if a.Text != "ok" {
			return fmt.Errorf("clock: %s", a.Text)
		}
		if a.Clock > s.was.latest() {
			return nil
		}
	}
}

// look is what the users together see in the directory of the case.
func (s *side) look() (snapshot, error) {
	all := make(snapshot)
	for _, who := range []string{"root", "alice", "bob"} {
		answer, err := s.agents[who].ask("look")
		if err != nil {
			return nil, err
		}
		maps.Copy(all, answer.Objects)
		if answer.All {
			break
		}
	}
	return all, nil
}
