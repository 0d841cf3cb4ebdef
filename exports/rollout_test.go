package exports

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func ref(name string) Ref { return Ref{Version: name, Digest: digestOf(name[len(name)-1])} }

func all(Ref) bool { return true }

func promoted(t *testing.T, s *State) string {
	t.Helper()
	r, err := s.Rollout()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := r.Promoted()
	return p.Version
}

func TestPromoteAndRollback(t *testing.T) {
	s := OpenState(t.TempDir())
	if got := promoted(t, s); got != "" {
		t.Fatalf("a new store has %s promoted", got)
	}
	if _, _, err := s.Rollback("me", all); !errors.Is(err, ErrNothingBefore) {
		t.Errorf("rollback of nothing: %v", err)
	}
	for _, v := range []string{"v1", "v2", "v2", "v3"} {
		if _, _, err := s.Promote(Promotion{Ref: ref(v), By: "me"}, sure); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"v2", "v1"} {
		if _, to, err := s.Rollback("me", all); err != nil || to.Version != want || promoted(t, s) != want {
			t.Fatalf("rollback to %s, %v, promoted %s; want %s", to.Version, err, promoted(t, s), want)
		}
	}
	if _, _, err := s.Rollback("me", all); !errors.Is(err, ErrNothingBefore) || promoted(t, s) != "v1" {
		t.Errorf("rollback below the first: %v, promoted %s", err, promoted(t, s))
	}
	r, _ := s.Rollout()
	var did []string
	for _, e := range r.History {
		did = append(did, e.Action+" "+e.Version)
		if e.By != "me" || e.Time.IsZero() {
			t.Errorf("event %+v lacks who or when", e)
		}
	}
	if got, want := strings.Join(did, ", "), "promote v1, promote v2, promote v3, rollback v2, rollback v1"; got != want {
		t.Errorf("history: %s; want %s", got, want)
	}
}

func TestRollbackPassesOverWhatIsGone(t *testing.T) {
	s := OpenState(t.TempDir())
	for _, v := range []string{"v1", "v2", "v3"} {
		s.Promote(Promotion{Ref: ref(v), By: "me"}, sure)
	}
	r, err := s.Rollout()
	if err != nil {
		t.Fatal(err)
	}
	if before := r.Before(func(r Ref) bool { return r.Version != "v2" }); len(before) != 1 || before[0].Version != "v1" {
		t.Errorf("before the promoted version: %v; want v1", before)
	}
	if before := r.Before(func(Ref) bool { return false }); before != nil {
		t.Errorf("before the promoted version, where nothing exists: %v", before)
	}
	r.Stack = append(r.Stack, Ref{"again", r.Stack[len(r.Stack)-1].Digest}, Ref{"and-again", r.Stack[len(r.Stack)-1].Digest})
	if before := r.Before(all); len(before) != 3 || before[0].Version != "again" || before[2].Version != "v2" {
		t.Errorf("before a version of several names: %v; want them, and v2", before)
	}
	if _, to, err := s.Rollback("me", func(r Ref) bool { return r.Version != "v2" }); err != nil || to.Version != "v1" {
		t.Errorf("rollback to %s, %v; want v1, v2 being removed", to.Version, err)
	}
}

func TestRemoveOfPromoted(t *testing.T) {
	s := OpenState(t.TempDir())
	s.Promote(Promotion{Ref: ref("v1"), By: "me"}, sure)
	if err := s.Remove(ref("v1"), "me", func() error { t.Error("it was deleted"); return nil }); err == nil {
		t.Error("the promoted version was removed")
	}
	if _, _, err := s.Promote(Promotion{Ref: ref("v3"), By: "me"}, func() error { return errors.New("gone") }); err == nil || promoted(t, s) != "v1" {
		t.Errorf("a version that is gone was promoted: %v, %s", err, promoted(t, s))
	}
	deleted := false
	if err := s.Remove(ref("v2"), "me", func() error { deleted = true; return nil }); err != nil || !deleted {
		t.Errorf("remove of another: %v, deleted %v", err, deleted)
	}
}

func TestOperatorsAtOnceLoseNothing(t *testing.T) {
	dir := t.TempDir()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for k := range 10 {
				if _, _, err := OpenState(dir).Promote(Promotion{Ref: ref(fmt.Sprintf("v%d-%d", i, k)), By: "me"}, sure); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	r, err := OpenState(dir).Rollout()
	if err != nil || len(r.History) != 80 {
		t.Errorf("%d promotes are in the history, %v; want 80", len(r.History), err)
	}
}

func TestStateFilesThatAreNotOurs(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"cut", `{"format":1,"stack":[{"ver`, "not a rollout state"},
		{"empty", ``, "not a rollout state"},
		{"newer", `{"format": 4}`, "format 4"},
		{"bad digest", `{"format":1,"stack":[{"version":"v1","digest":"xyz"}]}`, "digest"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, rolloutFile)
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		s := OpenState(dir)
		if _, err := s.Rollout(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want an error with the file's path and %q", c.name, err, c.want)
		}
		if _, _, err := s.Promote(Promotion{Ref: ref("v1"), By: "me"}, sure); err == nil {
			t.Errorf("%s: promote went over a state that it could not read", c.name)
		}
		if b, _ := os.ReadFile(path); string(b) != c.content {
			t.Errorf("%s: the file was changed", c.name)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var r Rollout
	for i := range 2 * mostHistory {
		r.note(Event{By: "me", Action: "promote", Ref: ref(fmt.Sprintf("v%d", i))})
	}
	if len(r.History) != mostHistory || r.History[mostHistory-1].Version != fmt.Sprintf("v%d", 2*mostHistory-1) {
		t.Errorf("%d events, the last %s; want the last %d", len(r.History), r.History[len(r.History)-1].Version, mostHistory)
	}
}

func FuzzRollout(f *testing.F) {
	f.Add(`{"format":1,"stack":[],"history":[]}`)
	f.Add(`{"format":1,"stack":[{"version":"v1","digest":"00"}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := decodeRollout(strings.NewReader(s)); err == nil {
			r.Promoted()
		}
	})
}
