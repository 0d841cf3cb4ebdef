package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rootnfsd/rootnfsd/exports"
)

// newStoreOf returns a store of a name with golden trees. One that is not sealable has a file where its packs would go.
func newStoreOf(t *testing.T, name string, sealable bool, trees ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, tree := range append(trees, ".rootnfsd") {
		if err := os.MkdirAll(filepath.Join(dir, tree), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if !sealable {
		if err := os.WriteFile(filepath.Join(dir, ".rootnfsd", "packs"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestSealNew: a store that cannot be sealed does not keep the others from being served.
func TestSealNew(t *testing.T) {
	for _, c := range []struct {
		name   string
		stores []string // those that begin with "bad" cannot be sealed
		want   string   // what is promoted in each
		err    bool
	}{
		{"all are sealed", []string{"one", "two"}, "v1 v1", false},
		{"the first is not", []string{"bad", "two"}, "- v1", false},
		{"the last is not", []string{"one", "bad"}, "v1 -", false},
		{"none is", []string{"bad", "bad2"}, "- -", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stores []*openedStore
			for _, name := range c.stores {
				s, err := openStore(newStoreOf(t, name, !strings.HasPrefix(name, "bad"), "v1"))
				if err != nil {
					t.Fatal(err)
				}
				stores = append(stores, s)
			}
			core, logs := observer.New(zap.ErrorLevel)
			log := zap.New(core)
			x, err := exports.New(exports.Config{Images: imagesOf(stores, log), Starting: true, Log: log})
			if err != nil {
				t.Fatal(err)
			}
			if err := noneEmpty(stores); err != nil {
				t.Error(err)
			}
			if err := sealNew(t.Context(), stores, x, log); (err != nil) != c.err {
				t.Errorf("%v", err)
			}
			var got []string
			for _, s := range x.Serving() {
				if s.Promoted.Version == "" {
					s.Promoted.Version = "-"
				}
				got = append(got, s.Promoted.Version)
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("promoted: %s; want %s", got, c.want)
			}
			if n := logs.FilterMessage("a tree is not served").Len(); n != strings.Count(c.want, "-") {
				t.Errorf("log: %v", logs.All())
			}
		})
	}
}

// TestServeAnEmptyStore: that one of several stores is empty is said before anybody is answered.
func TestServeAnEmptyStore(t *testing.T) {
	full, empty := newStoreOf(t, "full", true, "v1"), newStoreOf(t, "empty", true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it would go on for ever otherwise
	err := newApp().RunContext(ctx, []string{"rootnfsd", "serve", "--export", full, "--export", empty, "--listen", "127.0.0.1:0", "--portmap", "off"})
	if err == nil || !strings.Contains(err.Error(), empty+" is empty") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(full, ".rootnfsd", "versions", "v1.index")); err == nil {
		t.Error("the other store was sealed first")
	}
}

// TestServeIsStoppedWhileSealing: that is no failure, or systemd would say that the unit failed.
func TestServeIsStoppedWhileSealing(t *testing.T) {
	store := newStoreOf(t, "images", true, "v1")
	app := newApp()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	args := []string{"rootnfsd", "serve", "--export", store, "--listen", "127.0.0.1:0", "--portmap", "off", "--log-level", "error"}
	if err := app.RunContext(ctx, args); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(store, ".rootnfsd", "versions", "v1.index")); err == nil {
		t.Error("a tree was sealed after the stop")
	}
}

// TestSealedBeforeOthers: a store is served as soon as it is sealed, whatever is still to be done.
func TestSealedBeforeOthers(t *testing.T) {
	var stores []*openedStore
	for _, name := range []string{"one", "two"} {
		s, err := openStore(newStoreOf(t, name, true, "v1"))
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	x, err := exports.New(exports.Config{Images: imagesOf(stores, zap.NewNop()), Starting: true, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stores { // both have a version, and one of them is said to be ready
		if err := s.sealTrees(t.Context(), zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Sealed("one"); err != nil {
		t.Fatal(err)
	}
	if s := x.Serving(); s[0].Promoted.Version != "v1" || s[1].Promoted.Version != "" {
		t.Errorf("%+v", s)
	}
}
