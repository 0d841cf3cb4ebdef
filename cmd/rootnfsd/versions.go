package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func versionsCommand() *cli.Command {
	return &cli.Command{
		Name:  "versions",
		Usage: "list the versions of the store",
		Description: `A version whose tree was sealed again with other content is listed with the
first digits of its digest behind its name (v1~0123456789ab) until it is removed.
Drafts (rootnfsd draft) come last.

Examples:
   rootnfsd versions
   rootnfsd versions --json | jq -r '.[] | select(.promoted) | .name'`,
		Flags: []cli.Flag{exportFlag(), configFlag(), jsonFlag()},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			versions, err := s.overview(time.Now())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, versions)
			}
			if len(versions) == 0 {
				fmt.Fprintf(c.App.Writer, "no versions yet: put a golden tree into %s and run rootnfsd seal\n", s.Dir())
				return nil
			}
			return versionTable(c.App.Writer, versions)
		}),
	}
}

// versionUse is a version, and what is made of it.
type versionUse struct {
	versionJSON
	Promoted    bool     `json:"promoted"`
	PromotedFor string   `json:"promoted_for,omitempty"` // some nodes alone
	Pinned      []string `json:"pinned,omitempty"`       // nodes that are pinned to it
	Nodes       []string `json:"nodes"`                  // those that run it, by name or address
	// Draft is set for what is no version yet, and has no digest.
	Draft *exports.Draft `json:"draft,omitempty"`
}

// overview lists the versions with who runs them.
func (s *openedStore) overview(now time.Time) ([]versionUse, error) {
	infos, err := s.Versions()
	if err != nil {
		return nil, err
	}
	rollout, inv, nodes, err := s.known()
	if err != nil {
		return nil, err
	}
	promoted, _ := rollout.Promoted()
	byName := slices.ContainsFunc(infos, func(i image.Info) bool { return refOf(i) == promoted })
	uses := []versionUse{}
	for _, i := range infos {
		ref := refOf(i)
		uses = append(uses, versionUse{
			versionJSON: versionOf(i),
			// Another name for the same content is not what was promoted, but
			// where that name is gone it is what is served.
			Promoted: ref.Is(promoted) && (ref == promoted || !byName),
			Pinned:   inv.PinnedTo(ref),
			Nodes:    runningOn(inv, nodes, ref, now),
		})
		if p := rollout.Partial; p != nil && ref.Is(p.Ref) {
			uses[len(uses)-1].PromotedFor = p.String()
		}
	}
	for _, d := range rollout.Drafts {
		uses = append(uses, versionUse{versionJSON: versionJSON{Name: d.Version}, Nodes: runningOn(inv, nodes, d.Ref, now), Draft: &d})
	}
	return uses, nil
}

func versionTable(w io.Writer, versions []versionUse) error {
	rows := [][]string{{"VERSION", "DIGEST", "OBJECTS", "SIZE", "SEALED", "NODES", ""}}
	for _, v := range versions {
		if v.Error != "" {
			rows = append(rows, []string{v.Name, "-", "-", "-", "-", "-", "damaged: " + v.Error})
			continue
		}
		if v.Draft != nil {
			rows = append(rows, []string{v.Name, "-", "-", "-", "-", nodeCount(v.Nodes), describeDraft(v.Draft)})
			continue
		}
		var notes []string
		if v.Promoted {
			notes = append(notes, "promoted")
		}
		if v.PromotedFor != "" {
			notes = append(notes, "promoted for "+v.PromotedFor)
		}
		if len(v.Pinned) > 0 {
			notes = append(notes, nodesNamed(v.Pinned)+" pinned to it")
		}
		rows = append(rows, []string{v.Name, v.Digest[:12], strconv.FormatUint(v.Objects, 10), size(v.Bytes), when(v.Sealed), nodeCount(v.Nodes), strings.Join(notes, "; ")})
	}
	return table(w, rows)
}

// nodesNamed names nodes, or says how many they are.
func nodesNamed(addrs []string) string {
	const few = 3
	if len(addrs) <= few {
		return strings.Join(addrs, ", ")
	}
	return plural(len(addrs), "node")
}

func nodeCount(addrs []string) string {
	const few = 3
	switch {
	case len(addrs) == 0:
		return "-"
	case len(addrs) <= few:
		return strings.Join(addrs, ",")
	default:
		return strconv.Itoa(len(addrs))
	}
}
