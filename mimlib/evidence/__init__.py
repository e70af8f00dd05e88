"""What is claimed, how it is measured, and the receipts."""
