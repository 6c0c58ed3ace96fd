// Package dashboards holds a dashboard for Grafana, sluice.json, and alerting rules for Prometheus,
// alerts.yaml. Its tests compare what they name with what is exported. It is a module of its own
// because they need Prometheus' parser.
package dashboards
