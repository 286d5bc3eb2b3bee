"""What the changes put in place: functions with the name and the parameters of what they replace."""
