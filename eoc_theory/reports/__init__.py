"""What people read: diagnoses, designs, comparisons and plots."""
