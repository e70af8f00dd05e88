"""What a lesson needs while it runs: banner, checks, report, widgets."""
