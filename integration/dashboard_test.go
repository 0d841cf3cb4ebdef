package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// TestDashboard has Prometheus scrape a server that nodes call, and holds each query of docs/grafana.json to a
// result that has the labels which its legend names.
func TestDashboard(t *testing.T) {
	require(t, "prometheus")
	queries := dashboardQueries(t)
	store := newStore(t, map[string]files{"v1": smallTree, "v2": {"etc/hostname": "other\n"}})
	at := "--export=" + store
	cli(t, "seal", at)
	cli(t, "promote", "v1", at)
	adminAddr := freeAddr(t)
	s, err := peer.Rootnfsd(t.Context(), rootnfsd, store, "v1", "--admin", adminAddr, "--home", t.TempDir(), "--home-ports", "any")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	prom := startPrometheus(t, adminAddr)

	prom.await(t, "up == 1", func() {})
	cli(t, "promote", "v2", at)
	cli(t, "rollback", at)
	node := newCaller(t, s)
	for _, q := range queries {
		t.Run(q.title, func(t *testing.T) {
			for _, series := range prom.await(t, q.expr, node.call) {
				for _, label := range q.labels {
					if _, ok := series.Metric[label]; !ok {
						t.Errorf("%s\nhas no label %s: %v", q.expr, label, series.Metric)
					}
				}
			}
		})
	}
}

// dashboardQuery is a query of the dashboard as Grafana would make it.
type dashboardQuery struct {
	title, expr string
	labels      []string // that its legend names
}

var (
	legendLabel   = regexp.MustCompile(`{{\s*(\w+)\s*}}`)
	variableQuery = regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)
)

func dashboardQueries(t *testing.T) []dashboardQuery {
	t.Helper()
	b, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr, LegendFormat string }
		}
		Annotations struct {
			List []struct{ Name, Expr, TextFormat string }
		}
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	// In this order, for some variables begin with the names of others.
	replace := []string{"$__rate_interval", "1m", "${datasource}", ""}
	var queries []dashboardQuery
	for _, v := range dashboard.Templating.List {
		replace = append(replace, "$"+v.Name, ".*")
		if v.Type != "query" {
			continue
		}
		parts := variableQuery.FindStringSubmatch(v.Query)
		if parts == nil {
			t.Fatalf("the query of the variable %s is not understood: %s", v.Name, v.Query)
		}
		queries = append(queries, dashboardQuery{"variable " + v.Name, fmt.Sprintf("count by (%s) (%s)", parts[2], parts[1]), parts[2:]})
	}
	variables := strings.NewReplacer(replace...)
	add := func(title, expr, legend string) {
		q := dashboardQuery{title: title, expr: variables.Replace(expr)}
		for _, m := range legendLabel.FindAllStringSubmatch(legend, -1) {
			q.labels = append(q.labels, m[1])
		}
		if strings.Contains(q.expr, "$") {
			t.Errorf("%s: a variable that there is not: %s", title, q.expr)
		}
		queries = append(queries, q)
	}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("the panel %s asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			add(p.Title, target.Expr, target.LegendFormat)
		}
	}
	for _, a := range dashboard.Annotations.List {
		add(a.Name, a.Expr, a.TextFormat)
	}
	if len(queries) < 20 {
		t.Fatalf("%d queries; the dashboard is not understood", len(queries))
	}
	return queries
}

// caller is a node that makes some of all calls.
type caller struct {
	conn, home *rpc.Conn
	calls      []byte // on conn
	homeCalls  []byte
}

func newCaller(t *testing.T, s *peer.Server) *caller {
	t.Helper()
	mount := func(path string) (*rpc.Conn, []byte) {
		conn, err := rpc.Dial(s.Addr, rpc.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		root, err := conn.Mount(path)
		if err != nil {
			t.Fatal(err)
		}
		return conn, root
	}
	c := &caller{}
	var root, home []byte
	c.conn, root = mount("/images")
	c.home, home = mount("/home")
	c.calls = c.conn.AppendGetattr(nil, 1, root)
	c.homeCalls = c.home.AppendGetattr(nil, 1, home)
	return c
}

// call makes calls; that they fail is seen where they are counted.
func (c *caller) call() {
	_, _ = c.conn.Do(1, c.calls)
	_, _ = c.home.Do(1, c.homeCalls)
}

// prometheus is a Prometheus that scrapes one server.
type prometheus struct{ url string }

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir, addr := t.TempDir(), freeAddr(t)
	write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs: [{job_name: rootnfsd, static_configs: [{targets: [%q]}]}]
`, target))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		cmd.Wait()
		if b, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("log of Prometheus:\n%s", b)
		}
	})
	return &prometheus{"http://" + addr}
}

// series is one line of the result of a query.
type series struct {
	Metric map[string]string
}

// await makes a query until it has a result, and calls between before each time.
func (p *prometheus) await(t *testing.T, expr string, between func()) []series {
	t.Helper()
	var last error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		between()
		result, err := p.query(expr)
		if len(result) > 0 {
			return result
		}
		if last = err; last == errBadQuery {
			break
		}
	}
	t.Fatalf("%s\nhas no result: %v", expr, last)
	return nil
}

// errBadQuery is the error of a query that can have no result.
var errBadQuery = errors.New("it is no query")

func (p *prometheus) query(expr string) ([]series, error) {
	answer, err := http.PostForm(p.url+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusBadRequest || answer.StatusCode == http.StatusUnprocessableEntity {
		return nil, errBadQuery
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	var result struct {
		Data struct{ Result []series }
	}
	err = json.Unmarshal(body, &result)
	return result.Data.Result, err
}
