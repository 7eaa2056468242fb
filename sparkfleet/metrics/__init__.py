"""`sparkfleet metrics serve-config`: what a Prometheus and a Grafana of the site's own need to show this fleet."""
