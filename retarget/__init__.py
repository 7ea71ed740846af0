"""Operator's hand and wrist to robot command: key points, hand and wrist retargeting, clutch, filters."""
