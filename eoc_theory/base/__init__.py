"""What every public function stands on: checked arguments, its guard, isolation of what was handed in."""
