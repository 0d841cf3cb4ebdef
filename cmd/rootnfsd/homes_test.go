package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestParseHomes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rootnfsd.yaml")
	settings := "home: /srv/home\nhome-layout: per-node\nhome-skel: /srv/skel\nhome-squash: all\nanonuid: 1000\nanongid: 1001\n"
	if err := os.WriteFile(file, []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"", "none"},
		{"--home /srv/home", "/srv/home false  false 4096 0 65534 65534"},
		{"--home /srv/./home/", "/srv/home false  false 4096 0 65534 65534"},
		{"--home /srv/home --home-layout shared --home-squash none --anonuid 7 --anongid 4294967294", "/srv/home true  false 4096 1 7 4294967294"},
		{"--home /srv/home --home-skel /srv/skel", "/srv/home false /srv/skel false 4096 0 65534 65534"},
		{"--config " + file, "/srv/home false /srv/skel false 4096 2 1000 1001"},
		{"--config " + file + " --home-squash root --anonuid 5", "/srv/home false /srv/skel false 4096 0 5 1001"},
		{"--home /srv/home --home-ports any", "/srv/home false  true 4096 0 65534 65534"},
		{"--home /srv/home --home-max 7", "/srv/home false  false 7 0 65534 65534"},
		{"--home /srv/home --home-max -1", "--home-max"},
		{"--home /srv/home --home-ports all", "reserved or any"},
		{"--home-ports any", "--home DIR"},
		{"--home-layout shared", "--home DIR"},
		{"--anonuid 7", "--home DIR"},
		{"--home /srv/home --home-layout each", "per-node or shared"},
		{"--home /srv/home --home-squash no", "root, none or all"},
		{"--home /srv/home --home-layout shared --home-skel /srv/skel", "--home-skel"},
		{"--home /srv/home --anonuid 4294967295", "number"},
		{"--home /srv/home --anongid -1", "number"},
		{"--home /srv/home --anongid users", "number"},
	} {
		got := "never run"
		app := &cli.App{Flags: append(homeFlags(), configFlag()), Action: func(ctx *cli.Context) error {
			cfg, err := readConfig(ctx)
			if err != nil {
				return err
			}
			h, err := parseHomes(ctx, cfg.Homes)
			switch {
			case err != nil:
				got = err.Error()
			case h == nil:
				got = "none"
			default:
				got = fmt.Sprint(h.Dir, " ", h.Shared, " ", h.Skel, " ", h.AnyPort, " ", h.Max, " ", h.Squash, " ", h.AnonUID, " ", h.AnonGID)
			}
			return nil
		}}
		if err := app.Run(append([]string{"rootnfsd"}, strings.Fields(c.args)...)); err != nil {
			t.Fatal(err)
		}
		if got != c.want && !(strings.Contains(got, "--help") && strings.Contains(got, c.want)) {
			t.Errorf("%q: %s; want %s", c.args, got, c.want)
		}
	}
}
